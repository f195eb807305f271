"""The poll: a look several times a second that reports what has changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import psycopg

from k2.probes import Observer
from k2.probes.following import Following
from k2.probes.observer import Progress, Quick, compose
from k2.registry.observed import Decision, Verdict
from k2.registry.runtime import Runtime
from k2.state import database, watchers
from k2.supervision.edges import Mark, edges, rest
from k2.watchdog.judged import Look, dated, examine, in_order
from k2.watchdog.looking import not_read
from k2.watchdog.memory import MemoryWatch
from k2.watchdog.recording import record_looks, silence
from k2.watchdog.turns import Turns

log = logging.getLogger(__name__)

READ_EVERY_SECONDS = 10
HEARTBEAT_SECONDS = 5
CLOCK_TOLERANCE = timedelta(seconds=2)
"""By how much the wall clock may move between two ticks beside the time that passed, before it was set."""


class Poll:
    """Looks several times a second and says what has changed. For one caller at a time, in any thread.

    Each tick asks the two sources without which nothing is decided, the host agent and what is wanted, what changed
    since the last one. The three that tell how a query fares may each take seconds, so they are read in threads of
    their own, every stream in its turn, and a tick takes what those last brought. It judges the streams of which
    something is new, and those that are not well. A source that is silent makes verdicts unknown and is named in
    `k2.watchers`; it ends no tick.
    """

    def __init__(
        self,
        runtime: Runtime,
        quick: Observer | None = None,
        following: Following | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime = runtime
        self._names = list(runtime.platform.streams)
        self._quick = quick or Observer(runtime)
        self._following = following or Following(Observer(runtime))
        self._clock, self._monotonic = clock, monotonic
        periods = {name: float(min(spec.trigger_seconds, READ_EVERY_SECONDS)) for name, spec in runtime.platform.streams.items()}
        self._turns = Turns(periods, monotonic())
        self._memory = MemoryWatch(runtime.platform, self._quick.state, monotonic)
        self._progress: dict[str, Progress] = {}
        self._marks: dict[str, Mark] = {}
        self._dead: dict[str, datetime] = {}
        self._rests_until: dict[str, float] = {}
        """Moments until which streams that are well are judged only when something is new."""
        self._silent: dict[str, tuple[str, ...]] = {}
        self._version: int | None = None
        self._heart: tuple[float, str] | None = None
        self._moment: tuple[datetime, float] | None = None
        self._turn = threading.Lock()

    def close(self) -> None:
        """Release the clients, after the tick that is under way."""
        with self._turn:
            self._following.close()
            self._quick.close()

    def tick(self, wait_seconds: float = 0.0) -> list[Decision]:
        """The decisions that are due to be reported now. With a wait it returns early when a driver started or ended."""
        with self._turn:
            self._quick.wait_for_change(self._version, wait_seconds)
            self._look_at_the_clock()
            fresh = self._following.take()
            self._progress.update(fresh)
            at = self._clock()
            quick = self._quick.changes(self._names)
            self._version = quick.drivers.version
            names = self._to_judge(quick, fresh)
            observations = compose(at, quick, {name: self._progress.get(name) or not_read(at) for name in names})
            now = self._clock()
            # Those left out are well, so nothing waits for them.
            looks = in_order(self._runtime.platform, [dated(examine(self._runtime, seen, now), self._dead) for seen in observations.values()], now)
            fired, marks = edges(self._marks, {found.decision.stream: found.decision for found in looks}, now)
            changed = {name for name, mark in marks.items() if mark != self._marks.get(name)}
            self._marks.update(marks)
            self._remember(looks, now)
            self._write(looks, fresh.keys() | changed, now)
            self._ask(quick, changed)
            self._memory.look(quick.drivers.newest, now)
            return fired

    def _look_at_the_clock(self) -> None:
        """What was read before the wall clock was set has no age any more: it is read again."""
        now, monotonic = self._clock(), self._monotonic()
        before, self._moment = self._moment, (now, monotonic)
        if before is None:
            return
        moved = now - before[0] - timedelta(seconds=monotonic - before[1])
        if abs(moved) > CLOCK_TOLERANCE:
            log.warning("the clock was set by %.0f s: every stream is read again", moved.total_seconds())
            self._progress.clear()
            self._rests_until.clear()
            self._turns.soon(self._names)

    def _to_judge(self, quick: Quick, fresh: Iterable[str]) -> list[str]:
        """Streams of which something is new, and those that do not rest, in the registry's order."""
        if quick.changed is None:
            return self._names
        monotonic = self._monotonic()
        new = quick.changed.union(fresh)
        return [name for name in self._names if name in new or self._rests_until.get(name, monotonic) <= monotonic]

    def _remember(self, looks: list[Look], now: datetime) -> None:
        monotonic = self._monotonic()
        for found in looks:
            name, verdict = found.decision.stream, found.decision.verdict
            self._rests_until[name] = monotonic + rest(self._runtime.platform.streams[name], found.observation, verdict, now)
            if sentences := silence(found.observation) if name in self._progress else ():
                self._silent[name] = sentences
            else:
                self._silent.pop(name, None)
            if verdict is Verdict.DEAD:
                self._dead[name] = found.decision.detected_at or now
            elif verdict is not Verdict.UNKNOWN:
                self._dead.pop(name, None)

    def _ask(self, quick: Quick, changed: Iterable[str]) -> None:
        """Have those streams read whose turn it is, or of which the verdict changed."""
        self._turns.soon(changed)
        if due := self._turns.due(self._monotonic()):
            self._following.ask({name: quick.drivers.newest[name] for name in due})

    def _write(self, looks: list[Look], worth: set[str], now: datetime) -> None:
        """Record the looks that are worth it, and that the poll lives."""
        told = [
            found
            for found in looks
            if (found.decision.stream in worth or found.first_commit_found)
            and (found.decision.stream in self._progress or found.decision.verdict is not Verdict.UNKNOWN)
        ]
        silent = "; ".join(dict.fromkeys(sentence for sentences in self._silent.values() for sentence in sentences))[:2000]
        monotonic = self._monotonic()
        beat = self._heart is None or silent != self._heart[1] or monotonic - self._heart[0] >= HEARTBEAT_SECONDS
        try:
            if told:
                record_looks(self._quick.state, self._runtime, told, now)
            if beat:
                self._quick.state.ask(lambda connection: watchers.looked(connection, "poll", silent))
        except (database.StateUnavailable, psycopg.Error) as error:
            if beat:
                log.error("the poll could not record what it saw: %s", error)
        if beat:
            self._heart = (monotonic, silent)
