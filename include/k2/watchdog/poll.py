"""The poll: a look several times a second that reports what has changed."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg

from k2.probes import Observer
from k2.probes.observer import Progress, Quick, compose
from k2.registry.observed import Decision, Verdict
from k2.registry.runtime import Runtime
from k2.state import database, watchers
from k2.supervision.edges import Mark, edges
from k2.watchdog.judged import Look, dated, examine, in_order
from k2.watchdog.looking import not_read
from k2.watchdog.recording import record, silences

log = logging.getLogger(__name__)

READ_EVERY_SECONDS = 10
HEARTBEAT_SECONDS = 5


class Poll:
    """Looks several times a second and says what has changed. For one caller at a time, in any thread.

    Each tick reads the two sources without which nothing is decided: the host agent and what is wanted. The three that
    tell how a query fares may each take seconds, so they are read in a thread of their own, and a tick takes what
    that last brought. A source that is silent makes verdicts unknown and is named in `k2.watchers`; it ends no tick.
    """

    def __init__(self, runtime: Runtime, quick: Observer | None = None, slow: Observer | None = None, thread: Executor | None = None) -> None:
        self._runtime = runtime
        self._names = list(runtime.platform.streams)
        self._quick = quick or Observer(runtime)
        self._slow = slow or Observer(runtime)
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="k2-progress")
        self._reading: Future[dict[str, Progress]] | None = None
        self._progress: dict[str, Progress] = {}
        self._asked_at: dict[str, datetime] = {}
        self._marks: dict[str, Mark] = {}
        self._dead: dict[str, datetime] = {}
        self._version: int | None = None
        self._heart: tuple[datetime, str] | None = None
        self._turn = threading.Lock()

    def close(self) -> None:
        """Release the clients, after the tick that is under way."""
        with self._turn:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._quick.close()
            self._slow.close()

    def tick(self, wait_seconds: float = 0.0) -> list[Decision]:
        """The decisions that are due to be reported now. With a wait it returns early when a driver started or ended."""
        with self._turn:
            self._quick.wait_for_change(self._version, wait_seconds)
            fresh = self._collect()
            at = datetime.now(UTC)
            quick = self._quick.quick(self._names)
            self._version = quick.drivers.version
            observations = compose(at, quick, {name: self._progress.get(name, not_read(at)) for name in self._names})
            now = datetime.now(UTC)
            looks = in_order(self._runtime.platform, [dated(examine(self._runtime, seen, now), self._dead) for seen in observations.values()], now)
            fired, marks = edges(self._marks, {found.decision.stream: found.decision for found in looks}, now)
            changed = {name for name in self._names if marks[name] != self._marks.get(name)}
            self._marks = marks
            self._keep_deaths(looks, now)
            self._write(looks, fresh | changed, now)
            self._ask(quick, changed, now)
            return fired

    def _collect(self) -> set[str]:
        """Take over what the other thread has read. Returns the streams that it read."""
        if self._reading is None or not self._reading.done():
            return set()
        brought, self._reading = self._reading.result(), None
        self._progress.update(brought)
        return set(brought)

    def _ask(self, quick: Quick, changed: set[str], now: datetime) -> None:
        """Have those streams read whose turn it is, unless a reading is under way."""
        for name in changed:
            self._asked_at.pop(name, None)
        if self._reading is not None:
            return
        due = [name for name in self._names if name not in self._asked_at or now - self._asked_at[name] >= self._every(name)]
        if due:
            self._asked_at.update(dict.fromkeys(due, now))
            self._reading = self._thread.submit(self._slow.progress, {name: quick.drivers.newest[name] for name in due})

    def _every(self, name: str) -> timedelta:
        return timedelta(seconds=min(self._runtime.platform.streams[name].trigger_seconds, READ_EVERY_SECONDS))

    def _keep_deaths(self, looks: list[Look], now: datetime) -> None:
        for found in looks:
            if found.decision.verdict is Verdict.DEAD:
                self._dead[found.decision.stream] = found.decision.detected_at or now
            elif found.decision.verdict is not Verdict.UNKNOWN:
                self._dead.pop(found.decision.stream, None)

    def _write(self, looks: list[Look], worth: set[str], now: datetime) -> None:
        """Record the looks that are worth it, and that the poll lives."""
        told = [
            found
            for found in looks
            if (found.decision.stream in worth or found.first_commit_found)
            and (found.decision.stream in self._progress or found.decision.verdict is not Verdict.UNKNOWN)
        ]
        silent = silences(found.observation for found in looks if found.decision.stream in self._progress)
        beat = self._heart is None or silent != self._heart[1] or now - self._heart[0] >= timedelta(seconds=HEARTBEAT_SECONDS)
        try:
            if told:
                self._quick.state.ask(lambda connection: record(connection, self._runtime, told, now))
            if beat:
                self._quick.state.ask(lambda connection: watchers.looked(connection, "poll", silent))
        except (database.StateUnavailable, psycopg.Error) as error:
            if beat:
                log.error("the poll could not record what it saw: %s", error)
        if beat:
            self._heart = (now, silent)
