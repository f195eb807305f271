"""The watchdog: looks at the streams, records what it saw, and acts. The imperative shell around `k2.supervision`.

It keeps nothing between two looks that the database does not have, so any number of them may run at once: the fence
decides which one starts a stream.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from pydantic import TypeAdapter

from k2.checkpoints.reader import CheckpointUnreadable, first_commit_after, read_tail
from k2.launchers.client import AgentClient, AgentRefused, AgentUnavailable
from k2.launchers.start import NotSafe, NotWanted, end_older, start
from k2.probes import Observer
from k2.probes.observer import Progress, Quick, compose
from k2.probes.reading import failed
from k2.registry.observed import Action, Checkpoint, Decision, Driver, DriverState, Observation, Reading, Verdict, Wanted
from k2.registry.runtime import Runtime
from k2.state import database, incidents, streams, watchers
from k2.state.database import Connection
from k2.supervision.edges import ACTS, HEALTHY, HUNG, TROUBLE, Mark, edges
from k2.supervision.judge import judge
from k2.supervision.policy import forgivable

log = logging.getLogger(__name__)

AT_ONCE = 4
READ_EVERY_SECONDS = 10
HEARTBEAT_SECONDS = 5

_OBSERVATION = TypeAdapter(Observation)


@dataclass(frozen=True)
class Look:
    """One stream at one moment. `observation.wanted` has the first commit that this look itself found."""

    observation: Observation
    decision: Decision
    first_commit_found: bool = False


@dataclass(frozen=True)
class Done:
    """What became of one decision. `ok` is False when it failed and is still to be done."""

    stream: str
    action: Action
    ok: bool
    detail: str
    fence: int | None = None
    drained: bool | None = None
    """Of a stop: whether the driver finished its batch; None when nothing ran."""


TOLD = {
    Verdict.DEAD: ("page", "died"),
    Verdict.REWIND: ("page", "lost its place"),
    Verdict.SPLIT_BRAIN: ("page", "had two drivers"),
    Verdict.HEAD_MISMATCH: ("ticket", "finds nothing to read"),
    Verdict.WAITING_DEPENDENCY: ("ticket", "waits for a dependency"),
}
"""How loud people are told of a verdict, and in which words; of those that are not here, that the stream hangs."""


def urgent(runtime: Runtime) -> list[Look]:
    """The streams that need an action, recorded: judged by what is wanted and by their drivers alone.

    No broker that is away and no frozen driver delays it, as either does a look at everything.
    """
    with Observer(runtime) as observer:
        names = list(runtime.platform.streams)
        at = datetime.now(UTC)
        observations = compose(at, observer.quick(names), {name: not_read(at) for name in names})
        now = datetime.now(UTC)
        looks = [examine(runtime, observation, now) for observation in observations.values()]
        return _recorded(observer, [found for found in looks if found.decision.action in ACTS], now)


def look(runtime: Runtime) -> list[Look]:
    """Observe every stream, judge it and record the verdict. A source that is silent makes verdicts unknown, it raises nothing."""
    with Observer(runtime) as observer:
        observations = observer.observe()
        now = datetime.now(UTC)
        looks = _recorded(observer, [examine(runtime, observation, now) for observation in observations.values()], now)
        try:
            observer.state.ask(lambda connection: watchers.looked(connection, "watchdog", silences(observations.values())))
        except database.StateUnavailable as error:
            log.error("the watchdog could not record that it lives: %s", error)
    return looks


def not_read(at: datetime) -> Progress:
    """What is known of a query that was not asked for."""
    unread = failed(at, LookupError("it was not read yet"))
    return Progress(unread, unread, unread)


def _recorded(observer: Observer, looks: list[Look], now: datetime) -> list[Look]:
    """The looks, each death dated by whoever saw it first, after they were written down if that was possible."""
    try:
        known = observer.state.ask(streams.dead_since)
        looks = [dated(found, known) for found in looks]
        observer.state.ask(lambda connection: record(connection, observer.runtime, looks, now))
    except database.StateUnavailable as error:
        log.error("the verdicts could not be recorded: %s", error)
    return looks


def examine(runtime: Runtime, observation: Observation, now: datetime) -> Look:
    """Judge one observation, having looked for the first commit that the database does not know of yet."""
    wanted, driver = observation.wanted.value, observation.driver.value
    found = False
    if wanted is not None and driver is not None and wanted.first_commit_at is None and driver.fence == wanted.fence and driver.started_at is not None:
        path = runtime.checkpoint(observation.stream)
        try:
            if first := first_commit_after(path, driver.started_at):
                found = True
                wanted = replace(wanted, first_commit_at=first[1], first_commit_batch=first[0])
                observation = replace(observation, wanted=replace(observation.wanted, value=wanted), checkpoint=Reading(now, read_tail(path)))
        except CheckpointUnreadable as error:
            observation = replace(observation, checkpoint=failed(now, error))
    platform = runtime.platform
    return Look(observation, judge(platform.streams[observation.stream], observation, platform.restart, now), found)


def record(connection: Connection, runtime: Runtime, looks: Iterable[Look], now: datetime) -> None:
    """Write down verdicts, launches, first commits, ends, incidents and forgiveness; all of it or nothing."""
    with connection.transaction():
        for found in looks:
            observation, decision = found.observation, found.decision
            wanted, driver = observation.wanted.value, observation.driver.value
            if wanted is not None and driver is not None and wanted.intent_at is not None:
                _record_launch(connection, found, wanted, driver, now)
                checkpoint = observation.checkpoint.value
                if checkpoint is not None and forgivable(runtime.platform.restart, wanted, checkpoint, now):
                    streams.forgive(connection, decision.stream, wanted.fence)
                if checkpoint is not None and decision.verdict is not Verdict.REWIND:
                    _record_checkpoint(connection, decision.stream, wanted, checkpoint)
            if wanted is not None:
                streams.record_verdict(connection, decision, now, _OBSERVATION.dump_python(observation, mode="json"))
                _record_incident(connection, decision)


def _record_launch(connection: Connection, found: Look, wanted: Wanted, driver: Driver, now: datetime) -> None:
    stream, fence = found.decision.stream, wanted.fence
    if driver.fence == fence and wanted.launched_at is None:
        streams.launched(connection, stream, fence, driver.how)
    if found.first_commit_found and wanted.first_commit_at is not None and wanted.first_commit_batch is not None:
        streams.first_commit(connection, stream, fence, wanted.first_commit_at, wanted.first_commit_batch)
    if wanted.ended_at is not None:
        return
    if driver.fence == fence and driver.state is DriverState.EXITED:
        reason = "stopped" if driver.asked or wanted.desired != "running" else "died"
        streams.ended(connection, stream, fence, at=driver.ended_at or now, exit_code=driver.exit_code, reason=reason)
    elif found.decision.verdict in (Verdict.DEAD, Verdict.STOPPED):
        streams.ended(connection, stream, fence, at=now, exit_code=None, reason="died" if found.decision.verdict is Verdict.DEAD else "stopped")


def _record_checkpoint(connection: Connection, stream: str, wanted: Wanted, checkpoint: Checkpoint) -> None:
    query_id, batch = checkpoint.query_id, checkpoint.last_commit_batch
    if query_id is not None and batch is not None and (wanted.known_batch is None or wanted.known_batch < batch):
        streams.know(connection, stream, query_id, batch)


def _record_incident(connection: Connection, decision: Decision) -> None:
    key = f"stream:{decision.stream}"
    if decision.verdict in TROUBLE or (decision.verdict in HUNG and decision.action is Action.START):
        severity, what = TOLD.get(decision.verdict, ("page", "hangs"))
        incidents.open_incident(connection, key, severity, f"Stream {decision.stream} {what}", f"{decision.verdict}: {decision.because}")
    elif decision.verdict in HEALTHY:
        incidents.resolve_incident(connection, key, f"fence {decision.fence}: {decision.because}")
    elif decision.verdict is Verdict.STOPPED:
        incidents.resolve_incident(connection, key, "it was stopped on request")


def dated(found: Look, known: dict[str, datetime]) -> Look:
    """A death that an earlier look had seen, by stream in `known`, keeps the moment of that one."""
    since, wanted = known.get(found.decision.stream), found.observation.wanted.value
    if found.decision.verdict is not Verdict.DEAD or since is None or wanted is None or wanted.intent_at is None or since < wanted.intent_at:
        return found
    return replace(found, decision=replace(found.decision, detected_at=since))


def silences(observations: Iterable[Observation]) -> str:
    """Which sources could not be read, one sentence each; empty when all answered that had something to tell."""
    sentences: dict[str, None] = {}
    for seen in observations:
        sources: list[tuple[str, Reading[Any]]] = [("wanted", seen.wanted), ("driver", seen.driver)]
        if seen.driver.value is None or seen.driver.value.state is DriverState.RUNNING:
            sources += [("checkpoint", seen.checkpoint), ("head", seen.head)]
        sentences.update({f"{name}: {reading.error}": None for name, reading in sources if reading.error is not None})
    return "; ".join(sentences)[:2000]


def act(runtime: Runtime, decisions: Iterable[Decision]) -> list[Done]:
    """Do what the decisions say, several streams at the same time. An error in one stream ends no other's action."""
    due = [d for d in decisions if d.action in ACTS]
    with AgentClient(runtime) as agent, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda decision: _act(runtime, agent, decision), due))


def _act(runtime: Runtime, agent: AgentClient, decision: Decision) -> Done:
    try:
        if decision.action is Action.STOP:
            return _stop(runtime, agent, decision)
        if decision.action is Action.END_OLDER:
            killed = end_older(agent, decision.stream, decision.fence)
            return Done(decision.stream, decision.action, True, f"killed {killed} drivers with fences below {decision.fence}")
        if decision.verdict in HUNG:
            _dump(agent, decision)
        drained = _stop(runtime, agent, decision).drained if decision.action is Action.REPLACE else None
        last_commit_at = _last_commit_at(runtime, decision.stream)
        started = start(
            runtime,
            agent,
            decision.stream,
            fence=decision.fence,
            generation=decision.generation,
            reason=decision.because,
            last_commit_at=last_commit_at,
            detected_at=decision.detected_at,
            old_end="hung" if decision.verdict in HUNG else "replaced",
        )
        detail = f"{'finished the start' if started.adopted else 'started'} with fence {started.fence} ({started.how})"
        return Done(decision.stream, decision.action, True, detail, started.fence, drained)
    except (streams.LostRace, NotWanted) as error:
        return Done(decision.stream, decision.action, True, f"nothing left to do: {error}")
    except NotSafe as error:
        return Done(decision.stream, decision.action, True, f"held: {error}")
    except Exception as error:
        log.exception("%s of %s failed", decision.action, decision.stream)
        return Done(decision.stream, decision.action, False, f"{type(error).__name__}: {error}")


def _stop(runtime: Runtime, agent: AgentClient, decision: Decision) -> Done:
    """Drain the newest driver and kill older ones, unless something else is wanted by now. Raises NotWanted."""
    with database.connect(runtime, "control") as connection:
        wanted = streams.wanted(connection, decision.stream)
    if wanted.generation != decision.generation:
        raise NotWanted(f"{decision.stream} is now wanted {wanted.desired}, generation {wanted.generation}; the decision was for {decision.generation}")
    running = [d for d in agent.drivers().get(decision.stream, []) if d.state is DriverState.RUNNING]
    for older in running[1:]:
        agent.kill(decision.stream, older.fence)
    if not running:
        return Done(decision.stream, decision.action, True, "no driver ran")
    ended = agent.stop(decision.stream, running[0].fence, runtime.platform.restart.drain_timeout_seconds)
    reason = "replaced" if decision.action is Action.REPLACE else "stopped"
    with database.connect(runtime, "control") as connection:
        streams.ended(connection, decision.stream, running[0].fence, at=datetime.now(UTC), exit_code=ended.exit_code, reason=reason)
    how = "drained" if ended.drained else f"not drained, exit code {ended.exit_code}"
    return Done(decision.stream, decision.action, True, f"stopped fence {running[0].fence}: {how}", running[0].fence, ended.drained)


def _dump(agent: AgentClient, decision: Decision) -> None:
    """Keep what the threads of a driver that hangs are doing, before it is killed."""
    try:
        if path := agent.dump(decision.stream, decision.fence):
            log.warning("%s of %s: what its threads did is in %s", decision.verdict, decision.stream, path)
    except (AgentUnavailable, AgentRefused) as error:
        log.warning("no stacks of %s: %s", decision.stream, error)


def _last_commit_at(runtime: Runtime, stream: str) -> datetime | None:
    try:
        return read_tail(runtime.checkpoint(stream)).last_commit_at
    except CheckpointUnreadable as error:
        log.warning("the ledger lacks the last commit of %s: %s", stream, error)
        return None


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
            looks = [dated(examine(self._runtime, seen, now), self._dead) for seen in observations.values()]
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
