"""What can be seen of the platform while it is hurt: the first sign of a fault, and whether all is well again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from k2.chaos.place import Place
from k2.launchers.records import alive, read_all
from k2.launchers.spares import read_spares
from k2.stack.errors import K2Error
from k2.stack.home import read_json
from k2.stack.supervisor import Phase
from k2.state.database import StateUnavailable, connect
from k2.state.streams import launches, wanted_all
from k2.supervision.verdicts import HEALTHY, HUNG

SAMPLE_SECONDS = 0.5
WELL_SECONDS = 300.0
"""A platform that is not well for so long, at first or between two rounds, ends the run."""
READY = (Phase.HEALTHY, Phase.DONE)


@dataclass(frozen=True)
class Sign:
    """Something out of order, and when it was first seen."""

    at: datetime
    subject: str
    """A stream, a service, or a source that the watchdog cannot read."""
    what: str


@dataclass
class Watching:
    """Samples verdicts and services in a thread of its own from `begin` on."""

    place: Place
    _signs: dict[tuple[str, str], Sign] = field(default_factory=dict)
    _pids: dict[str, int] = field(default_factory=dict)
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread(target=self._watch, name="chaos-watching", daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def begin(self) -> datetime:
        """Forget what was seen, and begin a round. Returns its moment."""
        with self._lock:
            self._signs.clear()
            self._pids = {name: facts["pid"] for name, facts in self._services().items() if facts.get("pid")}
            self._began = datetime.now(UTC)
            return self._began

    def signs(self) -> list[Sign]:
        """All signs of this round, oldest first."""
        with self._lock:
            return sorted(self._signs.values(), key=lambda sign: sign.at)

    def _services(self) -> dict[str, dict[str, Any]]:
        return (read_json(self.place.home.state_file) or {}).get("services", {})

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            with self._lock:
                began, pids = self._began, dict(self._pids)
            now = datetime.now(UTC)
            found = [*self._services_signs(now, pids), *self._verdict_signs(now, began)]
            with self._lock:
                if self._began == began:
                    for sign in found:
                        self._signs.setdefault((sign.subject, sign.what), sign)

    def _services_signs(self, now: datetime, pids: dict[str, int]) -> Iterable[Sign]:
        for name, facts in self._services().items():
            if facts["phase"] not in READY:
                yield Sign(now, name, facts["phase"])
            elif name in pids and facts.get("pid") != pids[name]:
                yield Sign(now, name, "started again")

    def _verdict_signs(self, now: datetime, began: datetime) -> Iterable[Sign]:
        try:
            with connect(self.place.runtime, "reader") as connection:
                verdicts = connection.execute("SELECT stream, verdict, since FROM k2.verdicts").fetchall()
                silent = connection.execute("SELECT watcher, detail FROM k2.watchers WHERE detail <> ''").fetchall()
                ends = connection.execute("SELECT stream, detected_at FROM k2.launches WHERE detected_at > %s", (began,)).fetchall()
        except (StateUnavailable, psycopg.Error):
            yield Sign(now, "postgres", "silent")
            return
        for row in verdicts:
            if row["verdict"] not in HEALTHY and row["since"] > began:
                yield Sign(row["since"], row["stream"], row["verdict"])
        for row in ends:
            yield Sign(row["detected_at"], row["stream"], "found")
        for row in silent:
            yield Sign(now, row["watcher"], f"cannot read {row['detail'].partition(':')[0]}")

    def hung(self, stream: str) -> Sign | None:
        """The first verdict of this round that the stream's driver hangs."""
        return next((sign for sign in self.signs() if sign.subject == stream and sign.what in HUNG), None)

    def ill(self, since: datetime) -> str:
        """What is not yet as it should be; empty when every service is healthy and every stream has committed after `since`."""
        waiting = [f"{name} {facts['phase']}" for name, facts in self._services().items() if facts["phase"] not in READY]
        if waiting:
            return ", ".join(waiting)
        try:
            with connect(self.place.runtime, "reader") as connection:
                now = wanted_all(connection)
        except (StateUnavailable, psycopg.Error) as error:
            return f"postgres: {error}".splitlines()[0]
        living: dict[str, list[int]] = {}
        for record in read_all(self.place.runtime)[0]:
            if alive(record):
                living.setdefault(record.stream, []).append(record.fence)
        for stream in self.place.runtime.platform.streams:
            wanted, tail = now[stream], self.place.tail(stream)
            if wanted.verdict not in HEALTHY:
                return f"{stream} {wanted.verdict}"
            if living.get(stream) != [wanted.fence]:
                return f"{stream} has drivers with fences {living.get(stream, [])}, current is {wanted.fence}"
            if tail is None or tail.last_commit_at is None or tail.last_commit_at <= since:
                return f"{stream} has not committed since"
        return ""

    def wait_until_well(self) -> None:
        """Return as soon as nothing is ill. Raises K2Error with what still is after WELL_SECONDS."""
        began, deadline = datetime.now(UTC), time.monotonic() + WELL_SECONDS
        while ill := self.ill(began):
            if time.monotonic() > deadline:
                raise K2Error(f"the platform is not well after {WELL_SECONDS:.0f} s: {ill}: look at ./k2 status with K2_HOME={self.place.runtime.home}")
            time.sleep(0.5)

    def cold(self) -> str:
        """How many spares are warm; empty when all are."""
        wanted = self.place.runtime.platform.spares.count
        warm = sum(warm for _, warm in read_spares(self.place.runtime).values())
        return "" if warm >= wanted else f"{warm} of {wanted} spares are warm"

    def raised(self, stream: str) -> bool:
        """Whether a new start of the stream was recorded in this round."""
        try:
            with connect(self.place.runtime, "reader") as connection:
                return any(row["intent_at"] > self._began for row in launches(connection, stream))
        except (StateUnavailable, psycopg.Error):
            return False

    def ways(self) -> str:
        """In a few words how the streams came back in this round: each start, and every service that was started again."""
        with connect(self.place.runtime, "reader") as connection:
            rows = [row for row in launches(connection) if row["intent_at"] > self._began]
        starts = [f"{row['stream']} #{row['fence']} {row['how'] or 'not launched'}" for row in rows]
        again = sorted({sign.subject for sign in self.signs() if sign.what == "started again"})
        verdicts = sorted({sign.what for sign in self.signs() if sign.what in HUNG})
        return "; ".join([*verdicts, *starts, *(f"{name} started again" for name in again)]) or "by itself"
