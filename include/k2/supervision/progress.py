"""How the query of a running driver fares: idle, progressing, hung, or not to be known.

No reading is believed alone. The checkpoint tells what was planned and committed, the head of the source whether there
is anything to do, the driver's own word whether its query is awake and its tasks move. Time alone proves nothing: a
batch may take long, and is left alone for as long as its tasks finish.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta

from k2.registry.observed import Action, Checkpoint, Decision, Head, Observation, QueryStatus, Verdict, Wanted
from k2.registry.platform import Restart, Stream
from k2.supervision.breaker import closed_until
from k2.supervision.conclude import Conclude, past, unusable, usable
from k2.supervision.dependencies import CATALOG, KAFKA, SCHEMA_REGISTRY, answers
from k2.supervision.failures import commits
from k2.supervision.policy import backoff
from k2.supervision.verdicts import STANDS

IDLE_EVENT_SECONDS = 10
"""Spark says that a query is idle at the first trigger at least so long after the event before."""
MOST_PATIENCE = timedelta(seconds=45)
"""No batch is called hung sooner, but where the trigger is so short that three of it and SPARE_PATIENCE are less."""
SPARE_PATIENCE = timedelta(seconds=15)


def quiet_limit(spec: Stream) -> timedelta:
    """How long a query that is awake may say nothing: three times the longest pause between two idle events."""
    return 3 * timedelta(seconds=spec.trigger_seconds * math.ceil(IDLE_EVENT_SECONDS / spec.trigger_seconds))


def patience(spec: Stream, status: QueryStatus | None, restart: Restart) -> timedelta:
    """How long a planned batch may go without a finished task or its commit.

    Long pauses of late earn it more, yet no more than a start has: one long pause must not hide a hang for hours.
    """
    longest = (status.longest_pause_seconds or 0.0) if status else 0.0
    earned = timedelta(seconds=min(3 * longest, restart.start_timeout_seconds))
    triggers = 3 * timedelta(seconds=spec.trigger_seconds)
    return max(triggers, earned, min(triggers + SPARE_PATIENCE, MOST_PATIENCE))


def judge_running(conclude: Conclude, observation: Observation, spec: Stream, restart: Restart, now: datetime) -> Decision:
    """The verdict on a stream whose current driver runs."""
    wanted, driver = observation.wanted.value, observation.driver.value
    assert wanted is not None and driver is not None
    status = usable(observation.status, now)
    if status is not None and status.fence != driver.fence:
        status = None
    answered = answered_at(spec, wanted, now)
    if status is not None and status.last_event_at is not None and answered is not None:
        # While a dependency was away its query could not speak.
        status = replace(status, last_event_at=max(status.last_event_at, answered))
    checkpoint, head = usable(observation.checkpoint, now), usable(observation.head, now)
    again = _Restart(conclude, wanted, restart, now)
    if status is not None and status.waits_for is not None and (why := _out_of_reach(observation, status.waits_for, now)):
        return conclude(Verdict.WAITING_DEPENDENCY, Action.NONE, f"its driver waits for {status.waits_for}, and {why}", dependency=status.waits_for)
    if status is not None and status.message == ENDED:
        return again(Verdict.QUERY_DEAD, "its driver runs and its query has ended", quiet_limit(spec))
    if spec.reads is None and answers(observation, KAFKA, now) is False:
        because = f"its driver is left alone, because Kafka does not answer the watchdog either: {observation.head.error}"
        return conclude(Verdict.WAITING_DEPENDENCY, Action.NONE, because, dependency=KAFKA)
    if wanted.first_commit_at is None:
        return _without_commit(conclude, again, observation, checkpoint, head, status, answered, restart, now)
    for name, reading in (("the checkpoint", observation.checkpoint), ("the head of its source", observation.head)):
        if why := unusable(reading, now):
            return conclude(Verdict.UNKNOWN, Action.NONE, f"{name} cannot be known: {why}")
    assert checkpoint is not None and head is not None
    if caught_up(checkpoint, head):
        return _idle(conclude, again, spec, checkpoint, status, observation, now)
    return _behind(conclude, again, spec, restart, wanted, checkpoint, head, status, observation, now)


ENDED = "ended"
"""What a driver says of its query after Spark has told it so."""


class _Restart:
    """Concludes that a driver must be ended and its stream started again, once the verdict has stood long enough."""

    def __init__(self, conclude: Conclude, wanted: Wanted, restart: Restart, now: datetime) -> None:
        self._conclude, self._wanted, self._restart, self._now = conclude, wanted, restart, now

    def __call__(self, verdict: Verdict, because: str, must_stand: timedelta = STANDS) -> Decision:
        since = self._wanted.verdict_since if self._wanted.verdict == verdict and self._wanted.verdict_since else self._now
        not_before = past(since, self._now) + max(must_stand, backoff(self._restart, self._wanted.deaths + 1))
        if until := closed_until(self._restart, self._wanted.lately, self._wanted.generation, self._now, commits(self._wanted, None)):
            not_before = max(not_before, until)
            because = f"{because}; it is not restarted before {until:%H:%M:%S} UTC, for it was too often and did not help"
        detected_at = min(since, self._now)
        if self._now < not_before:
            return self._conclude(verdict, Action.WAIT, because, not_before=not_before, detected_at=detected_at)
        return self._conclude(verdict, Action.START, because, not_before=not_before, detected_at=detected_at)


def answered_at(spec: Stream, wanted: Wanted, now: datetime) -> datetime | None:
    """When something that this stream depends on was last seen to answer again."""
    needed = (CATALOG, KAFKA) if spec.reads is None else (CATALOG, SCHEMA_REGISTRY)
    return max((past(at, now) for name, at in wanted.answered.items() if name in needed), default=None)


def caught_up(checkpoint: Checkpoint, head: Head) -> bool:
    if head.lag_rows is not None:
        return head.lag_rows == 0
    return checkpoint.committed is not None and head.position.items() <= checkpoint.committed.items()


def _out_of_reach(observation: Observation, dependency: str, now: datetime) -> str:
    """Why the watchdog cannot reach a dependency either; empty when it can, or was not to ask."""
    if dependency != "schema_registry" or observation.registry is None:
        return ""
    return unusable(observation.registry, now) or ""


def _without_commit(
    conclude: Conclude,
    again: _Restart,
    observation: Observation,
    checkpoint: Checkpoint | None,
    head: Head | None,
    status: QueryStatus | None,
    answered: datetime | None,
    restart: Restart,
    now: datetime,
) -> Decision:
    wanted, driver = observation.wanted.value, observation.driver.value
    assert wanted is not None and driver is not None
    nothing_left = checkpoint is not None and head is not None and checkpoint.last_commit_batch is not None and caught_up(checkpoint, head)
    if nothing_left and status is not None and status.phase == "running" and status.last_event_at is not None:
        return conclude(Verdict.IDLE, Action.NONE, "its query runs and everything that its source holds was committed before")
    begun = driver.started_at or wanted.launched_at
    seconds = (now - begun).total_seconds() if begun else 0.0
    because = f"its driver with fence {driver.fence} has run for {seconds:.0f} s and committed nothing yet"
    if status is not None and status.waits_for:
        because += f", it waits for {status.waits_for}"
    moments = [begun, answered, status.tasks_at if status else None, status.last_event_at if status else None]
    moved = max((moment for moment in moments if moment), default=now)
    limit = timedelta(seconds=restart.start_timeout_seconds)
    if now - moved >= limit:
        return again(Verdict.HUNG_START, f"{because}; nothing moved for {(now - moved).total_seconds():.0f} s, {limit.total_seconds():.0f} s may pass")
    return conclude(Verdict.STARTING, Action.NONE, because)


def _idle(
    conclude: Conclude, again: _Restart, spec: Stream, checkpoint: Checkpoint, status: QueryStatus | None, observation: Observation, now: datetime
) -> Decision:
    limit = quiet_limit(spec)
    if status is None:
        return again(Verdict.SUSPECT_DRIVER, f"nothing is left to commit, but its driver does not answer: {unusable(observation.status, now)}", limit)
    if status.last_event_at is None or now - status.last_event_at >= limit:
        quiet = "ever" if status.last_event_at is None else f"for {(now - status.last_event_at).total_seconds():.0f} s"
        return again(Verdict.SUSPECT_DRIVER, f"nothing is left to commit, but its query has said nothing {quiet} ({status.message})", limit / 3 + STANDS)
    return conclude(Verdict.IDLE, Action.NONE, f"everything that its source holds is committed, up to batch {checkpoint.last_commit_batch}")


def _behind(
    conclude: Conclude,
    again: _Restart,
    spec: Stream,
    restart: Restart,
    wanted: Wanted,
    checkpoint: Checkpoint,
    head: Head,
    status: QueryStatus | None,
    observation: Observation,
    now: datetime,
) -> Decision:
    lag = "an unknown number of rows" if head.lag_rows is None else f"{head.lag_rows} rows"
    because = f"{lag} behind, last committed batch {checkpoint.last_commit_batch}, trigger {spec.trigger_seconds} s"
    limit = patience(spec, status, restart)
    if checkpoint.in_flight and checkpoint.last_offset_at is not None:
        moved = max(moment for moment in (checkpoint.last_offset_at, answered_at(spec, wanted, now), status.tasks_at if status else None) if moment)
        if now - moved >= limit:
            still = f"{because}; batch {checkpoint.last_offset_batch} is planned, and for {(now - moved).total_seconds():.0f} s nothing of it was finished"
            if status is None:
                return again(Verdict.HUNG_PROCESSING, f"{still}; its driver is frozen: {unusable(observation.status, now)}", quiet_limit(spec) / 3)
            where = "in tasks" if status.active_tasks else "in the driver's own code (planning, foreachBatch, commit)"
            if status.waits_for is not None:
                where = f"waiting for {status.waits_for}, which answers the watchdog"
            return again(Verdict.HUNG_PROCESSING, f"{still}; it hangs {where}: {status.message}")
        return conclude(Verdict.PROGRESSING, Action.NONE, because)
    committed_at = checkpoint.last_commit_at
    if status is None:
        if committed_at is not None and now - committed_at >= limit:
            return again(Verdict.SUSPECT_DRIVER, f"{because}; its driver is frozen: {unusable(observation.status, now)}", quiet_limit(spec) / 3)
        return conclude(Verdict.PROGRESSING, Action.NONE, because)
    if status.last_event_at is not None and now - status.last_event_at >= quiet_limit(spec):
        where = "its trigger is dead" if status.message.startswith("Waiting for next trigger") else "it hangs at its source"
        quiet = (now - status.last_event_at).total_seconds()
        return again(Verdict.HUNG_SOURCE, f"{because}; nothing is planned and its query has said nothing for {quiet:.0f} s; {where}: {status.message}")
    awake = status.last_event_at is not None and now - status.last_event_at < quiet_limit(spec) * 2 / 3
    if awake and _found_nothing(wanted, committed_at, limit, now):
        return conclude(Verdict.HEAD_MISMATCH, Action.NONE, f"{because}; its query is awake and finds nothing to read: {status.message}")
    return conclude(Verdict.PROGRESSING, Action.NONE, because)


def _found_nothing(wanted: Wanted, committed_at: datetime | None, limit: timedelta, now: datetime) -> bool:
    """Whether it was behind, by the last verdicts, for so long that it should have planned a batch in between."""
    if wanted.verdict_since is None or wanted.verdict not in (Verdict.PROGRESSING, Verdict.HEAD_MISMATCH):
        return False
    if wanted.verdict == Verdict.HEAD_MISMATCH:
        return committed_at is None or committed_at < wanted.verdict_since
    return now - max(wanted.verdict_since, committed_at or wanted.verdict_since) >= limit
