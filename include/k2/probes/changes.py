"""What is wanted and which drivers there are, followed: read again only where it changed, and each time confirmed.

A value that is taken over because nothing changed carries the moment at which that was confirmed, so nothing old is
ever taken for new. Whatever cannot be confirmed is a reading with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from k2.launchers.client import AgentClient
from k2.probes.driver import Drivers
from k2.probes.reading import failed
from k2.probes.state import StateProbe
from k2.registry.observed import Driver, DriverState, Reading, Wanted
from k2.state import streams
from k2.state.database import Connection

T = TypeVar("T")

WHOLE_EVERY_SECONDS = 10.0
"""Everything is read again so often, whether or not somebody told of a change."""
CHANNEL = "k2_streams"
"""On which the database tells the name of each stream of which something changed (migration 0008)."""
ALL = "*"
"""It tells that something changed for all of them."""

ABSENT = Driver(DriverState.ABSENT)


class Dated(Mapping[str, Reading[T]], Generic[T]):
    """Readings of one moment, made when they are looked at."""

    def __init__(self, at: datetime, values: Mapping[str, T], missing: T | str, error: str | None = None) -> None:
        self._at, self._values, self._missing, self._error = at, values, missing, error

    def __getitem__(self, name: str) -> Reading[T]:
        if self._error is not None:
            return Reading(self._at, error=self._error)
        value = self._values.get(name)
        if value is not None:
            return Reading(self._at, value)
        if isinstance(self._missing, str):
            return Reading(self._at, error=self._missing.format(name=name))
        return Reading(self._at, self._missing)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class WantedChanges:
    """What is wanted of every stream, over the kept SQL connection, which is told by the database what to read again."""

    def __init__(self, state: StateProbe, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._state, self._monotonic = state, monotonic
        self._rows: dict[str, Wanted] = {}
        self._listens: Connection | None = None
        self._whole_at = 0.0
        self._error: str | None = None

    def look(self) -> tuple[Dated[Wanted], set[str] | None]:
        """What is wanted now, and which streams' changed since the last look; None for those that may all have."""
        at = datetime.now(UTC)
        before, was_silent = self._rows, self._error is not None
        try:
            self._rows = self._state.ask(self._read)
            self._error = None
        except Exception as error:
            self._listens = None
            self._error = failed(at, error).error
        readings = Dated(at, self._rows, "stream {name!r} is not registered in the database: run ./k2 up again", self._error)
        if was_silent or self._error is not None:
            return readings, None
        return readings, set() if self._rows is before else _different(before, self._rows)

    def _read(self, connection: Connection) -> dict[str, Wanted]:
        """All rows, or those that the database named, or none at all after one question that shows that it answers."""
        now = self._monotonic()
        if connection is not self._listens:
            connection.execute(f"LISTEN {CHANNEL}")
            self._listens, self._whole_at = connection, -WHOLE_EVERY_SECONDS + now
        # PostgreSQL hands over what was told before it ends its answer.
        connection.execute("SELECT 1")
        named = {notice.payload for notice in connection.notifies(timeout=0)}
        if ALL in named or now - self._whole_at >= WHOLE_EVERY_SECONDS:
            self._whole_at = now
            return streams.wanted_all(connection)
        return self._rows | streams.wanted_of(connection, named) if named else self._rows


def _different(before: Mapping[str, Wanted], after: Mapping[str, Wanted]) -> set[str]:
    """Streams of which something else is wanted or known; how far a checkpoint was seen is no news about a stream that goes on."""
    names = set()
    for name, row in after.items():
        old = before.get(name)
        if row is not old and (old is None or (row != old and replace(old, known_batch=row.known_batch) != row)):
            names.add(name)
    return names | (before.keys() - after.keys())


class DriverChanges:
    """The host agent's drivers, whose list is taken over when its version rose, and now and then for their memory."""

    def __init__(self, agent: AgentClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._agent, self._monotonic = agent, monotonic
        self._newest: dict[str, Driver] = {}
        self._others: dict[str, tuple[Driver, ...]] = {}
        self._version: int | None = None
        self._whole_at = 0.0

    def look(self, names: Iterable[str]) -> tuple[Drivers, set[str] | None]:
        """The drivers now, and the streams whose changed since the last look; None for those that may all have."""
        at, now = datetime.now(UTC), self._monotonic()
        known = self._version if now - self._whole_at < WHOLE_EVERY_SECONDS else None
        was_silent = self._version is None
        try:
            answer = self._agent.changes(known)
        except Exception as error:
            self._version = None
            return Drivers(Dated(at, {}, ABSENT, failed(at, error).error), {}, None), None
        if answer is None:
            return Drivers(Dated(at, self._newest, ABSENT), self._others, self._version), set()
        before, before_others = self._newest, self._others
        self._newest = {name: found[0] for name in names if (found := answer.drivers.get(name))}
        self._others = {name: others for name in names if (others := tuple(d for d in answer.drivers.get(name, [])[1:] if d.state is DriverState.RUNNING))}
        self._version, self._whole_at = answer.version, now
        readings = Drivers(Dated(at, self._newest, ABSENT), self._others, self._version)
        if was_silent:
            return readings, None
        changed = {name for name, driver in self._newest.items() if _is_news(before.get(name), driver)} | (before.keys() - self._newest.keys())
        return readings, changed | {name for name in before_others.keys() | self._others.keys() if before_others.get(name) != self._others.get(name)}


def _is_news(before: Driver | None, after: Driver) -> bool:
    """Whether anything but its memory is different."""
    return before is None or (before != after and replace(before, memory_mb=after.memory_mb) != after)
