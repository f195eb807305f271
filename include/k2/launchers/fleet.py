"""The drivers of this machine: started, watched, ended and adopted. Runs inside the host agent's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from k2.launchers import records, sessions
from k2.launchers.records import Record
from k2.launchers.spares import Spare, Spares
from k2.processes import ProcessId, memory_mb
from k2.registry.observed import Driver, DriverState, Failure, Stopped
from k2.registry.runtime import Runtime

log = logging.getLogger(__name__)

_FAILURE = TypeAdapter(Failure)

KEPT_PER_STREAM = 20
MEMORY_EVERY_SECONDS = 10
DUMP_SECONDS = 1.0
"""A process that is not frozen has printed its stacks by then."""


class UnknownDriver(LookupError):
    """The agent never started such a driver, or the registry has no such stream."""


class StaleFence(ValueError):
    """A driver with a higher fence was started already: only that one may write."""


@dataclass
class _Tracked:
    record: Record
    child: subprocess.Popen[bytes] | None = None
    status_url: str | None = None
    memory_mb: float | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Task[Stopped] | None = None

    @property
    def running(self) -> bool:
        return self.record.ended_at is None


class Fleet:
    """All drivers that this agent or an earlier one started. Not thread-safe: one event loop owns it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        # Of no other agent: whoever knows another one's version must not take this one's for the same.
        self.version = secrets.randbits(40)
        self.spares = Spares(runtime)
        self._tracked: dict[tuple[str, int], _Tracked] = {}
        self._highest: dict[str, int] = {}
        self._changed = asyncio.Event()

    def adopt(self) -> None:
        """Take over what earlier agents started. Call once, before any request is answered."""
        known, unreadable = records.read_all(self.runtime)
        for sentence in unreadable:
            log.error("a driver's record cannot be read, so only its fence is remembered: %s", sentence)
        for folder in (self.runtime.run / "drivers").glob("*#*"):
            stream, _, fence = folder.name.partition("#")
            if fence.isdigit():
                self._highest[stream] = max(self._highest.get(stream, 0), int(fence))
        for record in known:
            tracked = self._tracked[record.stream, record.fence] = _Tracked(record)
            if record.ended_at is not None:
                tracked.gone.set()
                continue
            if record.process is None:
                record.process = _running_with(self._command(record.stream, record.fence)[1:])
                self._save(record)
            if records.alive(record):
                log.info("adopted %s, pid %s", record.tag, record.process and record.process.pid)
            self._watch(tracked)
        self.spares.clear({t.record.spare for t in self._tracked.values() if t.running and t.record.spare})

    def drivers(self) -> dict[str, list[Driver]]:
        """Per stream the newest driver, then every older one that still runs, newest first."""
        found: dict[str, list[Driver]] = {}
        for (stream, _), tracked in sorted(self._tracked.items(), reverse=True):
            if stream not in found or tracked.running:
                found.setdefault(stream, []).append(self._describe(tracked))
        return found

    def notice(self) -> None:
        """Look whether drivers that were started began to listen: that is a change too."""
        for tracked in self._tracked.values():
            if tracked.running and tracked.status_url is None and (url := self._status_url(tracked.record)):
                tracked.status_url = url
                self._touch()

    async def changed(self, version: int, wait_seconds: float) -> None:
        """Return when the fleet is no longer at `version`, or after the wait."""
        if version == self.version:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_seconds)

    def start(self, stream: str, fence: int, use_spare: bool = False) -> Driver:
        """Start the driver of a stream with a fence, from a spare if that is allowed and there is one. The same stream and fence again: the first one's state.

        Raises UnknownDriver for a stream that is not in the registry, StaleFence for a fence below one that was seen, OSError
        when the start cannot be written down: then nothing was started, and no spare used.
        """
        if existing := self._tracked.get((stream, fence)):
            return self._describe(existing)
        if stream not in self.runtime.platform.streams:
            raise UnknownDriver(f"stream {stream!r} is not in the registry: it has {', '.join(self.runtime.platform.streams)}")
        if fence <= self._highest.get(stream, 0):
            raise StaleFence(f"fence {fence} of {stream} is stale: a driver with fence {self._highest[stream]} was started here already")
        record = Record(stream=stream, fence=fence, how=_how(None), boot=records.boot_id(), started_at=_now())
        records.write(self.runtime, record)
        spare = self.spares.take() if use_spare else None
        self.spares.rest()
        if spare is not None:
            record.how, record.spare, record.process = _how(spare), spare.name, spare.process
            self._save(record)
        self._highest[stream] = fence
        tracked = self._tracked[stream, fence] = _Tracked(record)
        try:
            tracked.child = self._spawn(record, spare)
            record.process = ProcessId.of(tracked.child.pid)
        except OSError as error:
            record.exit_message = f"it could not be started: {error}"
        self._save(record)
        log.info("started %s (%s), pid %s", record.tag, record.how, record.process and record.process.pid)
        self._watch(tracked)
        self._prune(stream)
        self._touch()
        return self._describe(tracked)

    async def stop(self, stream: str, fence: int, deadline_seconds: float) -> Stopped:
        """SIGTERM, and at the deadline SIGKILL to all of it. A second call joins the first. Raises UnknownDriver."""
        tracked = self._find(stream, fence)
        if tracked.stopping is None or (tracked.stopping.done() and tracked.running):
            tracked.stopping = asyncio.create_task(self._stop(tracked, deadline_seconds))
        return await asyncio.shield(tracked.stopping)

    async def kill(self, stream: str, fence: int) -> int:
        """SIGKILL to all processes of a driver. Returns how many there were. Raises UnknownDriver."""
        tracked = self._find(stream, fence)
        self._ask(tracked)
        killed = await asyncio.to_thread(sessions.kill, tracked.record.process) if tracked.record.process and tracked.record.boot == records.boot_id() else 0
        await tracked.gone.wait()
        return killed

    async def dump(self, stream: str, fence: int) -> str:
        """Have a driver's Python and JVM print the stacks of their threads. Returns a file with them, or an empty string. Raises UnknownDriver."""
        tracked = self._find(stream, fence)
        leader = tracked.record.process
        if not tracked.running or leader is None:
            return ""
        source = self._log_file(stream, fence)
        before = source.stat().st_size
        leader.send(signal.SIGUSR1)
        for member in await asyncio.to_thread(sessions.members, leader):
            if member.name == "java":
                member.send(signal.SIGQUIT)
        await asyncio.sleep(DUMP_SECONDS)
        with source.open("rb") as log_file:
            log_file.seek(before)
            stacks = log_file.read()
        if not stacks:
            return ""
        target = source.with_suffix(".threads.txt")
        target.touch(mode=0o600)
        target.write_bytes(stacks)
        return str(target)

    async def stop_all(self, deadline_seconds: float) -> dict[str, Stopped]:
        """Stop every running driver at the same time, by tag."""
        running = [t.record for t in self._tracked.values() if t.running]
        ends = await asyncio.gather(*(self.stop(r.stream, r.fence, deadline_seconds) for r in running))
        return {record.tag: end for record, end in zip(running, ends, strict=True)}

    async def measure(self) -> None:
        """Keep each driver's memory up to date, for ever."""
        while True:
            for tracked in list(self._tracked.values()):
                if tracked.running and (leader := tracked.record.process):
                    try:
                        tracked.memory_mb = await asyncio.to_thread(lambda leader=leader: memory_mb(sessions.members(leader)))
                    except OSError:
                        tracked.memory_mb = None
                        log.exception("the memory of %s could not be measured", tracked.record.tag)
            await asyncio.sleep(MEMORY_EVERY_SECONDS)

    async def _stop(self, tracked: _Tracked, deadline_seconds: float) -> Stopped:
        killed = False
        if tracked.running and tracked.record.process:
            self._ask(tracked)
            tracked.record.process.send(signal.SIGTERM)
            try:
                await asyncio.wait_for(tracked.gone.wait(), deadline_seconds)
            except TimeoutError:
                killed = True
                log.warning("%s did not drain within %s s: killed", tracked.record.tag, deadline_seconds)
                await asyncio.to_thread(sessions.kill, tracked.record.process)
        await tracked.gone.wait()
        return Stopped(drained=not killed and tracked.record.exit_code == 0, exit_code=tracked.record.exit_code)

    def _ask(self, tracked: _Tracked) -> None:
        if tracked.running:
            tracked.record.asked = True
            self._save(tracked.record)

    def _save(self, record: Record) -> None:
        """Write a record down. A disk that is full must keep nobody from knowing how the driver is."""
        try:
            records.write(self.runtime, record)
        except OSError:
            log.exception("the record of %s cannot be written: an agent that is started now would not know it", record.tag)

    def _find(self, stream: str, fence: int) -> _Tracked:
        try:
            return self._tracked[stream, fence]
        except KeyError:
            raise UnknownDriver(f"no driver {stream}#{fence} was started here") from None

    def _command(self, stream: str, fence: int) -> list[str]:
        spec = self.runtime.platform.streams.get(stream)
        script = self.runtime.tree / "spark_jobs" / f"{spec.type if spec else 'undeclared'}.py"
        return [sys.executable, str(script), "--stream", stream, "--fence", str(fence)]

    def _spawn(self, record: Record, spare: Spare | None) -> subprocess.Popen[bytes]:
        """Hand the stream over to the spare, or start a driver cold."""
        path = self._log_file(record.stream, record.fence)
        if spare is not None:
            try:
                return spare.become(record.stream, record.fence, path)
            except OSError as error:
                log.warning("spare %s died when it was needed: %s", spare.name, error)
                self.spares.discard(spare)
                record.how, record.spare = "cold", None
        return sessions.begin(self._command(record.stream, record.fence), self.runtime.tree, path)

    def _watch(self, tracked: _Tracked) -> None:
        """Conclude the driver's end when its process ends, or at once when it is gone already."""
        process = tracked.record.process
        try:
            if process is None:
                raise ProcessLookupError
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._conclude(tracked)
            return
        if not records.alive(tracked.record):
            os.close(handle)
            self._conclude(tracked)
            return

        def ended() -> None:
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)
            self._conclude(tracked)

        asyncio.get_running_loop().add_reader(handle, ended)

    def _conclude(self, tracked: _Tracked) -> None:
        record = tracked.record
        if record.process and record.boot == records.boot_id():
            for process in sessions.send_kill(record.process):
                log.info("killed pid %s, left over from %s", process.pid, record.tag)
        said_code, said, record.failure = _last_word(self.runtime.driver_dir(record.stream, record.fence) / "exit.json")
        record.exit_code = tracked.child.wait() if tracked.child else said_code
        record.exit_message = said or record.exit_message
        record.ended_at = _now()
        self._save(record)
        log.info("%s ended: %s %s", record.tag, record.exit_code, record.exit_message)
        if record.spare:
            shutil.rmtree(self.runtime.spares / record.spare, ignore_errors=True)
        tracked.child = None
        tracked.gone.set()
        self._touch()

    def _touch(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _describe(self, tracked: _Tracked) -> Driver:
        record = tracked.record
        return Driver(
            state=DriverState.RUNNING if tracked.running else DriverState.EXITED,
            fence=record.fence,
            pid=record.process.pid if record.process else None,
            started_at=record.started_at,
            ended_at=record.ended_at,
            exit_code=record.exit_code,
            exit_message=record.exit_message,
            failure=record.failure,
            asked=record.asked,
            memory_mb=tracked.memory_mb if tracked.running else None,
            how=record.how,
            status_url=tracked.status_url if tracked.running else None,
        )

    def _status_url(self, record: Record) -> str | None:
        try:
            ready = json.loads((self.runtime.driver_dir(record.stream, record.fence) / "ready.json").read_text())
            return f"http://127.0.0.1:{int(ready['port'])}/status"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("ready.json of %s cannot be read: %s", record.tag, error)
            return None

    def _log_file(self, stream: str, fence: int) -> Path:
        return self.runtime.logs / "drivers" / stream / f"{fence:06d}.log"

    def _prune(self, stream: str) -> None:
        """Keep the last drivers of a stream, and every one that runs."""
        fences = sorted(fence for name, fence in self._tracked if name == stream)
        for fence in fences[:-KEPT_PER_STREAM]:
            if not self._tracked[stream, fence].running:
                del self._tracked[stream, fence]
                shutil.rmtree(self.runtime.driver_dir(stream, fence))
                for file in (self._log_file(stream, fence), self._log_file(stream, fence).with_suffix(".threads.txt")):
                    file.unlink(missing_ok=True)


def _how(spare: Spare | None) -> str:
    if spare is None:
        return "cold"
    return "spare" if spare.warm else "spare, not yet warm"


def _now() -> datetime:
    return datetime.now(UTC)


def _last_word(path: Path) -> tuple[int | None, str, Failure | None]:
    """Exit code, message and failure that a driver left; (None, why, None) when it left nothing that can be read."""
    try:
        said = _legible(json.loads(path.read_text()))
        failure = _FAILURE.validate_python(said["failure"]) if said.get("failure") else None
        return int(said["code"]), f"{said['class']}: {said['message']}", failure
    except FileNotFoundError:
        return None, "", None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"its exit.json cannot be read: {error}", None


def _legible(value: Any) -> Any:
    """The value with each character replaced that PostgreSQL or UTF-8 cannot hold: an exception may quote any value of a record."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {name: _legible(of) for name, of in value.items()}
    return [_legible(of) for of in value] if isinstance(value, list) else value


def _running_with(arguments: list[str]) -> ProcessId | None:
    """The session leader that runs with these arguments after its interpreter; None when there is none."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            if command[1:] == arguments and os.getsid(int(entry.name)) == int(entry.name):
                return ProcessId.of(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return None
