"""What the watchdog writes down of its looks: launches, first commits, ends, verdicts, incidents, forgiveness."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg

from k2.probes.state import StateProbe
from k2.registry.observed import Action, Checkpoint, Decision, Driver, DriverState, ExitCode, Observation, Reading, Verdict, Wanted
from k2.registry.platform import Platform
from k2.registry.runtime import Runtime
from k2.state import incidents, streams, verdicts
from k2.state.database import Connection
from k2.state.outages import followed
from k2.supervision.dependencies import CATALOG, KAFKA, SCHEMA_REGISTRY, answers
from k2.supervision.down import still_down, together
from k2.supervision.failures import failure_class
from k2.supervision.order import ONE_CAUSE
from k2.supervision.policy import forgivable
from k2.supervision.verdicts import HEALTHY, HELD, in_trouble
from k2.watchdog import down, outages
from k2.watchdog.judged import Look

log = logging.getLogger(__name__)

TOLD = {
    Verdict.DEAD: ("ticket", "died"),
    Verdict.REWIND: ("page", "lost its place"),
    Verdict.POISONED: ("page", "fails at the same records again"),
    Verdict.INCOMPATIBLE: ("page", "cannot go on from its checkpoint"),
    Verdict.CRASH_LOOP: ("page", "dies again and again"),
    Verdict.SPLIT_BRAIN: ("page", "had two drivers"),
    Verdict.HEAD_MISMATCH: ("ticket", "finds nothing to read"),
}
"""How loud people are told of a verdict, and in which words; of those that are not here, that the stream hangs.

What the watchdog mends by itself pages when it has not come true after a while (k2.watchdog.down).
"""
WHAT_TO_DO = {
    Verdict.SPLIT_BRAIN: "What to do: find out who started the second driver. The older one is ended, and the catalog refused its commits.",
    Verdict.HEAD_MISMATCH: "What to do: look at the source: a topic that was made anew, or records that no reader sees. A restart would not help.",
}
"""Of verdicts whose troubles do not end by a restart."""
WRONG_SETTING = ("page", "died of a wrong setting")
CORRECT_IT = "What to do: correct what it names, then streams_control with action start. It is not started again by itself."
BLIND_KEY = "watchers:judgement"
BLIND_FOR = timedelta(minutes=2)
BLIND_ADVICE = "What to do: ./k2 status shows which process is down, ./k2 explain STREAM what cannot be read. The streams go on, but none is restarted."
NAMES = {KAFKA: "Kafka", SCHEMA_REGISTRY: "The schema registry", CATALOG: "The catalog's database"}
DEPENDENCY_SEVERITY = {SCHEMA_REGISTRY: "ticket"}
"""How loud people are told that a dependency is away; of any other it is a page."""


def record_looks(state: StateProbe, runtime: Runtime, looks: Sequence[Look], now: datetime) -> None:
    """Record the looks together; where the database refuses that, each alone: one that cannot be written keeps no other from it.

    Raises database.StateUnavailable.
    """
    try:
        state.ask(lambda connection: record(connection, runtime, looks, now))
    except psycopg.Error as error:
        log.error("the looks could not be recorded together, each is tried alone: %s", error)
        for found in looks:
            try:
                state.ask(lambda connection, found=found: record(connection, runtime, [found], now))  # type: ignore[misc]
            except psycopg.Error as reason:
                log.error("what was seen of %s could not be recorded: %s", found.decision.stream, reason)


def record(connection: Connection, runtime: Runtime, looks: Sequence[Look], now: datetime) -> None:
    """Write down verdicts, launches, first commits, ends, incidents, outages and forgiveness; all of it or nothing.

    What is written of every stream at every look, of a thousand streams too, takes one statement for all of them.
    """
    judged: list[tuple[Decision, bytes]] = []
    known: dict[str, tuple[str, int, int]] = {}
    with connection.transaction():
        outages.record(connection, runtime, looks, now)
        troubled = incidents.open_keys(connection)
        standing = [outage for outage in followed(connection).values() if outage.recovered_at is None]
        died = {outage.stream: outage.detected_at for outage in standing if outage.verdict == Verdict.DEAD}
        for found in looks:
            observation, decision = found.observation, found.decision
            wanted, driver = observation.wanted.value, observation.driver.value
            if wanted is not None and driver is not None and wanted.intent_at is not None:
                _record_launch(connection, found, wanted, driver, now)
                checkpoint = observation.checkpoint.value
                if checkpoint is not None and forgivable(runtime.platform.restart, wanted, checkpoint, now):
                    streams.forgive(connection, decision.stream, wanted.fence)
                if checkpoint is not None and decision.verdict is not Verdict.REWIND and _is_of(driver, wanted, observation.checkpoint.at):
                    known |= _further(decision.stream, wanted, checkpoint)
            if wanted is not None:
                judged.append((decision, verdicts.OBSERVATION.dump_json(observation)))
                _record_incident(connection, runtime.platform, decision, troubled, died, now)
        streams.know(connection, known)
        verdicts.record(connection, judged, now)
        if standing or down.told(troubled):
            down.record(connection, runtime.platform.streams, now)
        _record_dependencies(connection, runtime.platform, looks, now)
        _record_blindness(connection, runtime.platform, now)


def _record_launch(connection: Connection, found: Look, wanted: Wanted, driver: Driver, now: datetime) -> None:
    stream, fence = found.decision.stream, wanted.fence
    if driver.fence == fence and wanted.launched_at is None:
        streams.launched(connection, stream, fence, driver.how)
    if found.first_commit_found and wanted.first_commit_at is not None and wanted.first_commit_batch is not None:
        streams.first_commit(connection, stream, fence, wanted.first_commit_at, wanted.first_commit_batch)
    if wanted.ended_at is not None:
        return
    if driver.fence == fence and driver.state is DriverState.EXITED:
        died = not driver.asked and wanted.desired == "running"
        kind, failure = (failure_class(driver.exit_code), driver.failure) if died else (None, None)
        drained = driver.exit_code == ExitCode.STOPPED if driver.asked else None
        at, reason = driver.ended_at or now, "died" if died else "stopped"
        streams.ended(connection, stream, fence, at=at, exit_code=driver.exit_code, reason=reason, kind=kind, failure=failure, drained=drained)
    elif found.decision.verdict in (Verdict.DEAD, Verdict.STOPPED):
        streams.ended(connection, stream, fence, at=now, exit_code=None, reason="died" if found.decision.verdict is Verdict.DEAD else "stopped")


def _is_of(driver: Driver, wanted: Wanted, read_at: datetime) -> bool:
    """Whether a checkpoint that was read then is that of the driver with the current fence: an adopted stream may have got another one at its start."""
    return driver.fence == wanted.fence and driver.started_at is not None and read_at > driver.started_at


def _further(stream: str, wanted: Wanted, checkpoint: Checkpoint) -> dict[str, tuple[str, int, int]]:
    """The identity and the last batch of a checkpoint that has gone on since the database heard of it."""
    query_id, batch = checkpoint.query_id, checkpoint.last_commit_batch
    if query_id is not None and batch is not None and (wanted.known_batch is None or wanted.known_batch < batch):
        return {stream: (query_id, batch, wanted.fence)}
    return {}


def _record_dependencies(connection: Connection, platform: Platform, looks: Sequence[Look], now: datetime) -> None:
    """One incident per dependency that does not answer, with the streams that wait for it; over as soon as it was seen to answer."""
    waiting = verdicts.waiting_for(connection, platform.streams)
    for dependency, why in waiting.items():
        detail = f"Held until it answers: {', '.join(why)}. {next(iter(why.values()))}"
        title = f"{NAMES.get(dependency, dependency)} does not answer"
        incidents.open_incident(connection, f"dependency:{dependency}", DEPENDENCY_SEVERITY.get(dependency, "page"), title, detail)
    for dependency in NAMES.keys() - waiting.keys():
        # A driver that works and waits for the registry no longer has had its answer: nobody else asks.
        if dependency == SCHEMA_REGISTRY or any(answers(found.observation, dependency, now) for found in looks if _reads(found, dependency)):
            incidents.resolve_incident(connection, f"dependency:{dependency}", "it answers again")


def _record_blindness(connection: Connection, platform: Platform, now: datetime) -> None:
    """One incident for all streams of which nothing can be known for long: nobody would restart them."""
    blind = verdicts.unknown_since(connection, platform.streams, now - BLIND_FOR)
    if not blind:
        incidents.resolve_incident(connection, BLIND_KEY, "every stream can be judged again")
        return
    sentences = "; ".join(dict.fromkeys(blind.values()))
    detail = f"For more than {BLIND_FOR.total_seconds() / 60:.0f} minutes nothing is known of {', '.join(blind)}: {sentences}\n{BLIND_ADVICE}"
    incidents.open_incident(connection, BLIND_KEY, "page", "Streams cannot be judged", detail)


def _reads(found: Look, dependency: str) -> bool:
    """Whether a look tells anything of a dependency: of Kafka only one at a stream that reads it."""
    head = found.observation.head
    return dependency != KAFKA or head.silent == KAFKA or (head.value is not None and "snapshot_id" not in head.value.position)


def _record_incident(
    connection: Connection, platform: Platform, decision: Decision, troubled: Mapping[str, datetime], died: Mapping[str, datetime], now: datetime
) -> None:
    """One trouble is one incident: that a stream is held is told in one of its own, because now somebody must act.

    `troubled` are the keys of incidents that are open and since when, `died` the streams that died and are not back, and when.
    """
    key, held = incidents.stream_key(decision.stream), incidents.held_key(decision.stream)
    wrong_setting = decision.verdict is Verdict.DEAD and decision.action is Action.NONE  # which every start would repeat
    if decision.verdict in HELD or wrong_setting:
        severity, what = WRONG_SETTING if wrong_setting else TOLD[decision.verdict]
        detail = f"{decision.verdict}: {decision.because}" + (f"\n{CORRECT_IT}" if wrong_setting else "")
        incidents.resolve_incident(connection, key, f"it is held, which is told of its own: {decision.verdict}")
        incidents.open_incident(connection, held, severity, f"Stream {decision.stream} {what}", detail)
    elif decision.verdict is Verdict.WAITING_DEPENDENCY:
        return  # told once, of the dependency
    elif in_trouble(decision):
        if not (
            incidents.is_open(connection, held)
            or decision.stream in down.told(troubled)
            or _has_the_cause_of_bronze(connection, platform, decision)
            or (key not in troubled and _join_another(connection, platform, decision, died))
        ):
            severity, what = TOLD.get(decision.verdict, ("ticket", "hangs"))
            detail = "\n".join(filter(None, (f"{decision.verdict}: {decision.because}", WHAT_TO_DO.get(decision.verdict))))
            incidents.open_incident(connection, key, severity, f"Stream {decision.stream} {what}", detail)
            for reader in (name for name in platform.streams if decision.verdict is Verdict.DEAD and platform.feeder_of(name) == decision.stream):
                incidents.withdraw(connection, incidents.stream_key(reader), ONE_CAUSE)  # of one cause, and its reader was seen first
    elif decision.verdict in HEALTHY or decision.verdict is Verdict.STOPPED:
        how = "it was stopped on request" if decision.verdict is Verdict.STOPPED else f"fence {decision.fence}: {decision.because}"
        told = [s for s in died if not troubled.keys().isdisjoint((incidents.stream_key(s), incidents.held_key(s)))]
        for opened in troubled.keys() & {key, held}:
            if opened == held or not still_down(troubled[key], died, told, now):
                incidents.resolve_incident(connection, opened, how)


def _has_the_cause_of_bronze(connection: Connection, platform: Platform, decision: Decision) -> bool:
    """Whether people know the cause already: the Bronze stream that it reads is in trouble, and both died at one time or it only lacks rows."""
    feeder = platform.feeder_of(decision.stream)
    if feeder is None or not any(incidents.is_open(connection, kind(feeder)) for kind in (incidents.stream_key, incidents.held_key)):
        return False
    if decision.verdict is Verdict.HEAD_MISMATCH:
        return True
    died, cause = (streams.wanted(connection, name).last_death_at for name in (decision.stream, feeder))
    return decision.verdict is Verdict.DEAD and died is not None and cause is not None and abs(died - cause) <= ONE_CAUSE


def _join_another(connection: Connection, platform: Platform, decision: Decision, died: Mapping[str, datetime]) -> bool:
    """Let the incident of a stream that died at the same time tell of this one as well. False when there is none, or people were told of it already."""
    others = together(decision, died)
    for other in others:
        key = incidents.stream_key(other)
        if platform.feeder_of(other) != decision.stream and incidents.is_untold(connection, key):
            names = sorted({*others, decision.stream} - {other})
            incidents.add_evidence(connection, key, f"Others that died within a minute: {', '.join(names)}")
            return True
    return False


def silences(observations: Iterable[Observation]) -> str:
    """Which sources could not be read, one sentence each; empty when all answered that had something to tell."""
    return "; ".join(dict.fromkeys(sentence for seen in observations for sentence in silence(seen)))[:2000]


def silence(seen: Observation) -> tuple[str, ...]:
    """The same of one stream."""
    sources: list[tuple[str, Reading[Any]]] = [("wanted", seen.wanted), ("driver", seen.driver)]
    if seen.driver.value is None or seen.driver.value.state is DriverState.RUNNING:
        sources += [("checkpoint", seen.checkpoint), ("head", seen.head)]
    return tuple(f"{name}: {reading.error}" for name, reading in sources if reading.error is not None)
