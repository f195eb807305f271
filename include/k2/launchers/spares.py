"""The pool of warm spares: drivers without a stream, started in the background, handed over when a stream needs one.

A spare lives as long as the line to its agent: an agent that dies takes its spares with it, so none is ever adopted.
Runs inside the host agent's event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from k2.launchers import sessions
from k2.processes import ProcessId
from k2.registry.made_of import fingerprint
from k2.registry.runtime import Runtime

log = logging.getLogger(__name__)

RECORD = "spare.json"
LOOK_SECONDS = 2.0
AFTER_START_SECONDS = 10.0
"""A new spare leaves the processor to a driver that has just been started."""
FAILURE_SECONDS, FAILURE_CAP_SECONDS = 5.0, 300.0
WARM_UP_SECONDS = 120.0
"""A spare that is not warm after so long waits for something that does not answer."""
KEPT_LOGS = 20


@dataclass
class Spare:
    name: str
    child: subprocess.Popen[bytes]
    process: ProcessId | None
    line: socket.socket
    made_of: str
    """Fingerprint of the code and the configuration that it was started with."""
    log: Path
    warm: bool = False
    begun: float = field(default_factory=time.monotonic)

    def become(self, stream: str, fence: int, log_file: Path) -> subprocess.Popen[bytes]:
        """Tell it who it is; its log becomes the stream's. Raises OSError when it has just died."""
        with self.line:
            self.line.sendall(json.dumps({"stream": stream, "fence": fence}).encode() + b"\n")
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self.log.rename(log_file)
        return self.child

    def frozen(self) -> bool:
        """Whether one of its processes was stopped (SIGSTOP), so that it would take its stream's name and do nothing."""
        return any(process.stopped for process in sessions.members(self.process)) if self.process else False

    def stuck(self) -> bool:
        """Whether it should have been warm long ago."""
        return not self.warm and time.monotonic() - self.begun > WARM_UP_SECONDS


class Spares:
    """As many spares as the registry asks for. Not thread-safe: one event loop owns it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._pool: list[Spare] = []
        self._failures = 0
        self._not_before = 0.0

    async def keep(self) -> None:
        """Start spares that are missing, one after the other, and replace those of older code, for ever."""
        while True:
            try:
                self._discard_outdated()
                self._discard_stuck()
                warming = any(not spare.warm for spare in self._pool)
                if len(self._pool) < self.runtime.platform.spares.count and not warming and time.monotonic() >= self._not_before:
                    self._start()
            except Exception:
                log.exception("the spares could not be looked after")
                self._failed()
            await asyncio.sleep(LOOK_SECONDS)

    def take(self) -> Spare | None:
        """Hand over the spare that is the furthest on, if there is one; the caller owns it from now on."""
        self._discard_outdated()
        self._discard_stuck()
        for spare in [s for s in self._pool if s.frozen()]:
            log.warning("spare %s is stopped, so it cannot become a driver: it is replaced", spare.name)
            self._end(spare)
        if not self._pool:
            return None
        spare = next((s for s in self._pool if s.warm), self._pool[0])
        self._forget(spare)
        return spare

    def rest(self) -> None:
        """Start no spare for a while."""
        self._not_before = max(self._not_before, time.monotonic() + AFTER_START_SECONDS)

    def close(self) -> None:
        """End all spares."""
        for spare in list(self._pool):
            self._end(spare)

    def clear(self, used: set[str]) -> None:
        """Remove what earlier spares left behind, but for those that drivers have become."""
        for folder in self.runtime.spares.glob("*"):
            if folder.name not in used:
                shutil.rmtree(folder, ignore_errors=True)

    def _start(self) -> None:
        name = f"{time.time_ns() // 1_000_000:x}"
        folder = self.runtime.spares / name
        folder.mkdir(mode=0o700, parents=True)
        logs = self.runtime.logs / "drivers" / "spares"
        ours, theirs = socket.socketpair()
        path = logs / f"{name}.log"
        command = [sys.executable, str(self.runtime.tree / "spark_jobs" / "spare.py"), "--name", name]
        with theirs:
            child = sessions.begin(command, self.runtime.tree, path, theirs.fileno())
        spare = Spare(name, child, ProcessId.of(child.pid), ours, fingerprint(self.runtime), path)
        ours.setblocking(False)
        self._pool.append(spare)
        asyncio.get_running_loop().add_reader(ours, self._hear, spare)
        self._record(spare)
        log.info("started spare %s, pid %s", name, child.pid)
        for old in sorted(logs.glob("*.log"))[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)

    def _hear(self, spare: Spare) -> None:
        try:
            said = spare.line.recv(64)
        except ConnectionError:
            said = b""
        if said:
            spare.warm = True
            self._failures = 0
            self._record(spare)
            log.info("spare %s is warm", spare.name)
            return
        log.warning("spare %s ended by itself: see %s", spare.name, spare.log)
        self._failed()
        self._end(spare)

    def _failed(self) -> None:
        self._failures += 1
        self._not_before = time.monotonic() + min(FAILURE_CAP_SECONDS, FAILURE_SECONDS * 2 ** min(self._failures, 10))

    def _discard_outdated(self) -> None:
        current = fingerprint(self.runtime) if self._pool else ""
        for spare in [s for s in self._pool if s.made_of != current]:
            log.info("spare %s was started with other code or configuration: it is replaced", spare.name)
            self._end(spare)

    def _discard_stuck(self) -> None:
        for spare in [s for s in self._pool if s.stuck()]:
            log.warning("spare %s is not warm after %.0f s, see %s: it is replaced", spare.name, WARM_UP_SECONDS, spare.log)
            self._failed()
            self._end(spare)

    def _end(self, spare: Spare) -> None:
        self._forget(spare)
        self.discard(spare)

    def discard(self, spare: Spare) -> None:
        """End a spare that is no longer in the pool, and remove what it leaves."""
        spare.line.close()
        if spare.process:
            sessions.kill(spare.process)
        spare.child.wait()
        shutil.rmtree(self.runtime.spares / spare.name, ignore_errors=True)

    def _forget(self, spare: Spare) -> None:
        self._pool.remove(spare)
        asyncio.get_running_loop().remove_reader(spare.line)
        (self.runtime.spares / spare.name / RECORD).unlink(missing_ok=True)

    def _record(self, spare: Spare) -> None:
        if spare.process:
            (self.runtime.spares / spare.name / RECORD).write_text(json.dumps({**spare.process.as_dict(), "warm": spare.warm}))


def read_spares(runtime: Runtime) -> dict[str, tuple[ProcessId, bool]]:
    """The living spares by name, and whether each is warm."""
    found = {}
    for path in sorted(runtime.spares.glob(f"*/{RECORD}")):
        try:
            facts = json.loads(path.read_text())
            process = ProcessId(facts["pid"], facts["start"])
        except (OSError, ValueError, KeyError):
            continue  # it is being written or removed
        if process.alive:
            found[path.parent.name] = process, bool(facts["warm"])
    return found
