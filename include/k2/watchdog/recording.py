"""What the watchdog writes down of its looks: launches, first commits, ends, verdicts, incidents, forgiveness."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from k2.registry.observed import Checkpoint, Decision, Driver, DriverState, Observation, Reading, Verdict, Wanted
from k2.registry.runtime import Runtime
from k2.state import incidents, streams
from k2.state.database import Connection
from k2.supervision.edges import HEALTHY, in_trouble
from k2.supervision.policy import forgivable
from k2.watchdog import outages
from k2.watchdog.judged import Look

_OBSERVATION = TypeAdapter(Observation)

TOLD = {
    Verdict.DEAD: ("page", "died"),
    Verdict.REWIND: ("page", "lost its place"),
    Verdict.SPLIT_BRAIN: ("page", "had two drivers"),
    Verdict.HEAD_MISMATCH: ("ticket", "finds nothing to read"),
    Verdict.WAITING_DEPENDENCY: ("ticket", "waits for a dependency"),
}
"""How loud people are told of a verdict, and in which words; of those that are not here, that the stream hangs."""


def record(connection: Connection, runtime: Runtime, looks: Iterable[Look], now: datetime) -> None:
    """Write down verdicts, launches, first commits, ends, incidents, outages and forgiveness; all of it or nothing."""
    looks = list(looks)
    with connection.transaction():
        outages.record(connection, runtime, looks, now)
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
    key = incidents.stream_key(decision.stream)
    if in_trouble(decision):
        severity, what = TOLD.get(decision.verdict, ("page", "hangs"))
        incidents.open_incident(connection, key, severity, f"Stream {decision.stream} {what}", f"{decision.verdict}: {decision.because}")
    elif decision.verdict in HEALTHY:
        incidents.resolve_incident(connection, key, f"fence {decision.fence}: {decision.because}")
    elif decision.verdict is Verdict.STOPPED:
        incidents.resolve_incident(connection, key, "it was stopped on request")


def silences(observations: Iterable[Observation]) -> str:
    """Which sources could not be read, one sentence each; empty when all answered that had something to tell."""
    sentences: dict[str, None] = {}
    for seen in observations:
        sources: list[tuple[str, Reading[Any]]] = [("wanted", seen.wanted), ("driver", seen.driver)]
        if seen.driver.value is None or seen.driver.value.state is DriverState.RUNNING:
            sources += [("checkpoint", seen.checkpoint), ("head", seen.head)]
        sentences.update({f"{name}: {reading.error}": None for name, reading in sources if reading.error is not None})
    return "; ".join(sentences)[:2000]
