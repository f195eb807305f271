"""The processes of one driver: a driver leads a session of its own, and its JVM and Python workers are members."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from k2.processes import ProcessId

GONE_SECONDS = 20


def begin(command: list[str], tree: Path, log: Path, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start the leader of a new session, with the code of `tree`. Its output is appended to `log`, which is made private."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command,
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree / "include"), "PYTHONUNBUFFERED": "1"},
            stdin=stdin,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def members(leader: ProcessId) -> list[ProcessId]:
    """The living processes of the session that `leader` led, the leader itself included while it lives.

    The kernel gives the leader's pid to no new process while a member lives, so members are found after its death too.
    """
    holder = ProcessId.of(leader.pid)
    if holder is not None and holder != leader:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) != leader.pid:
                continue
        except (ProcessLookupError, PermissionError):
            continue
        process = ProcessId.of(int(entry.name))
        if process is not None and process.start >= leader.start:
            found.append(process)
    return found


def send_kill(leader: ProcessId) -> list[ProcessId]:
    """SIGKILL to every member now; works on stopped ones. Returns those that were signalled."""
    return [p for p in members(leader) if p.send(signal.SIGKILL)]


def kill(leader: ProcessId) -> int:
    """End the whole session and wait until it is gone. Returns how many processes were killed.

    Raises TimeoutError when one survives, which only a process stuck in the kernel does.
    """
    killed: set[ProcessId] = set()
    deadline = time.monotonic() + GONE_SECONDS
    while living := send_kill(leader):
        killed.update(living)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(p.pid for p in living)} survived SIGKILL for {GONE_SECONDS} s")
        time.sleep(0.02)
    return len(killed)
