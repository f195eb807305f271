"""Shadows: a driver's code and configuration of now, tried on a copy of its stream's checkpoint, in a process of the host agent's.

One at a time. A shadow holds no fence, cannot write to the catalog, ends with its line to the agent, and is killed at its
deadline. Runs inside the host agent's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from k2.launchers import sessions
from k2.processes import ProcessId
from k2.registry.made_of import fingerprint
from k2.registry.runtime import Runtime
from k2.registry.shadow import LIMIT_SECONDS, Outcome, Shadow
from k2.stack.preflight import available_memory_mb

log = logging.getLogger(__name__)

RESERVE_MB = 512
"""Left to the streams that run, beside what the shadow may take."""
KEPT_LOGS = 20

_SHADOW = TypeAdapter(Shadow)


class ShadowRefused(RuntimeError):
    """A shadow cannot be started now: another one runs, or memory is short."""


class Shadows:
    """Runs shadows. Not thread-safe: one event loop owns it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._leader: ProcessId | None = None
        self._busy = ""

    @property
    def folder(self) -> Path:
        return self.runtime.run / "shadows"

    def close(self) -> None:
        """End the shadow that runs."""
        if self._leader is not None:
            sessions.kill(self._leader)

    async def run(self, stream: str, query_id: str, deadline_seconds: float) -> Shadow:
        """Try the stream, whose checkpoint is that of the query. Raises ShadowRefused."""
        if self._busy:
            raise ShadowRefused(f"a shadow of {self._busy} runs: try again when it has ended, within {LIMIT_SECONDS:.0f} s")
        needed = self.runtime.platform.streams[stream].memory_mb + RESERVE_MB
        if (available := available_memory_mb()) < needed:
            raise ShadowRefused(f"{available} MiB of memory are available and a shadow of {stream} needs {needed}: end something, or lower memory_mb")
        begun, made_of = time.monotonic(), fingerprint(self.runtime)
        self._busy = stream
        folder = self.folder / f"{time.time_ns() // 1_000_000:x}"
        try:
            found = await self._try(stream, query_id, folder, deadline_seconds)
            if found.outcome is Outcome.COMPATIBLE and fingerprint(self.runtime) != made_of:
                found = replace(found, outcome=Outcome.UNKNOWN, because="code or configuration changed while it was tried: try again")
        finally:
            self._busy, self._leader = "", None
            shutil.rmtree(folder, ignore_errors=True)
        found = replace(found, seconds=round(time.monotonic() - begun, 1), made_of=made_of)
        log.info("shadow of %s: %s after %s s: %s", stream, found.outcome, found.seconds, found.because)
        return found

    async def _try(self, stream: str, query_id: str, folder: Path, deadline_seconds: float) -> Shadow:
        folder.mkdir(mode=0o700, parents=True)
        logs = self.runtime.logs / "drivers" / "shadows"
        path = logs / f"{stream}-{folder.name}.log"
        script = self.runtime.tree / "spark_jobs" / "shadow.py"
        command = [sys.executable, str(script), "--stream", stream, "--query", query_id, "--folder", str(folder)]
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                child = sessions.begin(command, self.runtime.tree, path, theirs.fileno())
            leader = self._leader = ProcessId.of(child.pid)
            try:
                await asyncio.wait_for(asyncio.to_thread(child.wait, deadline_seconds + 1), deadline_seconds)
            except Exception:  # either of the two timeouts
                log.warning("shadow of %s did not end within %s s: killed", stream, deadline_seconds)
            finally:
                if leader is not None:
                    await asyncio.to_thread(sessions.kill, leader)
                await asyncio.to_thread(child.wait)
        for old in sorted(logs.glob("*.log"), key=lambda file: file.stat().st_mtime)[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)
        try:
            return _SHADOW.validate_json((folder / "result.json").read_bytes())
        except FileNotFoundError:
            return Shadow(stream, Outcome.UNKNOWN, f"it ended with {child.returncode} within {deadline_seconds:.0f} s and left no result: see {path}")
        except (ValidationError, OSError) as error:
            return Shadow(stream, Outcome.UNKNOWN, f"its result cannot be read: {error}: see {path}")
