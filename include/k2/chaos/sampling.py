"""What a soak reads of the platform every half minute."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

import psycopg

from k2.registry.runtime import Runtime
from k2.stack.home import Home
from k2.stack.status import read_status
from k2.state.database import StateUnavailable, connect
from k2.state.streams import wanted_all

Series = dict[str, list[tuple[float, float]]]
"""By name, (hours since the begin, value)."""


@dataclass
class Samples:
    """All readings of a run, by what was read."""

    hours: float = 0.0
    memory_mb: Series = field(default_factory=dict)
    """Per process; a driver that was replaced goes on under its stream's name."""
    room_mb: dict[str, float] = field(default_factory=dict)
    commit_seconds: Series = field(default_factory=dict)
    """Per stream, one for each batch: from its plan to its commit."""
    files: Series = field(default_factory=dict)
    mib: Series = field(default_factory=dict)
    """Per folder of a checkpoint or a table, on disk."""
    lag_rows: Series = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    """How often each was seen, as `stream VERDICT`."""
    fences: dict[str, int] = field(default_factory=dict)
    first_fences: dict[str, int] = field(default_factory=dict)


class Sampler:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._home = runtime, Home(runtime.home)
        self._began = time.time()
        self._seen: dict[str, int] = {}
        self.samples = Samples()

    def sample(self) -> None:
        """Read everything once. What cannot be read at this moment is left out of this sample."""
        found, hours = self.samples, (time.time() - self._began) / 3600
        found.hours = hours
        status = read_status(self._home)
        members = [*status.services, *status.streams, *status.spares]
        for member in members:
            name = "a spare" if member in status.spares else member.name
            if member.memory_mb is not None:
                found.memory_mb.setdefault(name, []).append((hours, member.memory_mb))
                found.room_mb[name] = max(1.0, (member.budget_mb or member.memory_mb) - member.memory_mb)
        for stream in status.streams:
            found.verdicts[f"{stream.name} {stream.verdict}"] += 1
            if stream.lag_rows is not None:
                found.lag_rows.setdefault(stream.name, []).append((hours, stream.lag_rows))
            self._commits(stream.name)
            self._folder(f"checkpoint {stream.name}", self._runtime.checkpoint(stream.name), hours)
        warehouse = Path(unquote(urlparse(self._runtime.warehouse).path)) / self._runtime.platform.catalog.namespace
        for table in self._runtime.platform.tables:
            for part in ("data", "metadata"):
                self._folder(f"{table} {part}", warehouse / table / part, hours)
        with suppress(StateUnavailable, psycopg.Error), connect(self._runtime, "reader") as connection:
            found.fences = {name: wanted.fence for name, wanted in wanted_all(connection).items()}
            found.first_fences = found.first_fences or dict(found.fences)

    def _commits(self, stream: str) -> None:
        """The batches that were committed since the last sample; Spark keeps the last hundred."""
        folder = self._runtime.checkpoint(stream)
        batches = sorted(int(path.name) for path in (folder / "commits").glob("[0-9]*"))
        newest = self._seen.get(stream)
        for batch in batches:
            if newest is not None and batch > newest:
                with suppress(FileNotFoundError):
                    planned, done = ((folder / part / str(batch)).stat().st_mtime for part in ("offsets", "commits"))
                    self.samples.commit_seconds.setdefault(stream, []).append(((done - self._began) / 3600, done - planned))
        if batches:
            self._seen[stream] = batches[-1]

    def _folder(self, name: str, folder: Path, hours: float) -> None:
        files = size = 0
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                facts = path.stat()
                files, size = files + 1, size + facts.st_size
        self.samples.files.setdefault(name, []).append((hours, files))
        self.samples.mib.setdefault(name, []).append((hours, size / 2**20))
