"""Identity, death and removal of operating-system processes.

A pid alone is reused by the kernel; a pid with its start time names one process for ever. The stack's supervisor
and the host agent both adopt processes that they did not start, so neither relies on being the parent.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessId:
    """One process of this boot: `start` is its start time in clock ticks since boot (/proc/PID/stat, field 22)."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this pid now; None when there is none or it is a zombie."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    @property
    def name(self) -> str:
        """Of its program; empty when it is gone."""
        try:
            return Path(f"/proc/{self.pid}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""

    @property
    def stopped(self) -> bool:
        """Whether it is held by a signal such as SIGSTOP."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def send(self, signum: signal.Signals) -> bool:
        """Signal this process and never another one. False when it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(handle, signum)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def family(roots: Iterable[ProcessId]) -> list[ProcessId]:
    """The living roots, all their descendants, and all members of the sessions that a root leads."""
    roots = [r for r in roots if r.alive]
    found: dict[int, ProcessId] = {r.pid: r for r in roots}
    sessions = {r.pid for r in roots if _session(r.pid) == r.pid}
    parents: dict[int, list[int]] = {}
    for process in psutil.process_iter(["pid", "ppid"]):
        parents.setdefault(process.info["ppid"], []).append(process.info["pid"])
        if _session(process.info["pid"]) in sessions and (member := ProcessId.of(process.info["pid"])):
            found[member.pid] = member
    queue = list(found)
    while queue:
        for child in parents.get(queue.pop(), []):
            if child not in found and (identity := ProcessId.of(child)):
                found[child] = identity
                queue.append(child)
    return list(found.values())


def java_of(roots: Iterable[ProcessId]) -> ProcessId | None:
    """The Java process of a family; None while there is none."""
    return next((process for process in family(roots) if process.name == "java"), None)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def end(processes: Iterable[ProcessId], *, grace_seconds: float) -> list[ProcessId]:
    """SIGTERM, then SIGKILL after the grace. Returns those that had to be killed."""
    remaining = [p for p in processes if p.send(signal.SIGTERM)]
    deadline = time.monotonic() + grace_seconds
    while remaining and time.monotonic() < deadline:
        time.sleep(0.05)
        remaining = [p for p in remaining if p.alive]
    killed = [p for p in remaining if p.send(signal.SIGKILL)]
    while any(p.alive for p in killed):
        time.sleep(0.02)
    return killed


def memory_mb(processes: Iterable[ProcessId]) -> float:
    """Resident memory of the processes together, MiB; shared pages are split between their sharers (PSS)."""
    total = 0
    for process in processes:
        try:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
                    break
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return total / 1024
