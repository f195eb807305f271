"""What a poll reports: changes. A stream whose verdict stands is told once, however often it is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from k2.registry.observed import Action, Decision, Observation, Verdict
from k2.registry.platform import Stream
from k2.supervision.verdicts import ACTS, CALM, HEALTHY, TROUBLE

UNKNOWN_LASTS = timedelta(seconds=30)
"""A source that is silent for less is not told."""
DUE_AGAIN = timedelta(seconds=15)
"""An action that is still due after so long was not done: what was in its way may be gone."""


@dataclass(frozen=True)
class Mark:
    """What was last reported of a stream, or seen of it without need of a report."""

    condition: str | None = None
    """None while nothing was known of the stream yet."""
    action: Action = Action.NONE
    fence: int = 0
    generation: int = 0
    troubled: bool = False
    """It has been in trouble since it was last well or stopped, so people wait to hear that it is well."""
    unknown_since: datetime | None = None
    unknown_told: bool = False
    action_told_at: datetime | None = field(default=None, compare=False)


def edges(previous: Mapping[str, Mark], current: Mapping[str, Decision], now: datetime) -> tuple[list[Decision], dict[str, Mark]]:
    """The decisions to report now, and the marks to pass the next time.

    An action that is due, again while it stays due, a trouble, and the end of one are reported; the steps of a start or stop are not.
    Idle and progressing are one condition. Unknown is reported once it has lasted; what was known before stays
    marked, so that a short silence is no change. A stream seen for the first time is reported if it needs an action.
    """
    fired: list[Decision] = []
    marks: dict[str, Mark] = {}
    for stream, decision in current.items():
        before = previous.get(stream, Mark())
        if decision.verdict is Verdict.UNKNOWN:
            since = min(before.unknown_since or now, now)  # a clock that was set back must not make it wait
            tell = not before.unknown_told and now - since >= UNKNOWN_LASTS
            marks[stream] = replace(before, unknown_since=since, unknown_told=before.unknown_told or tell)
        else:
            condition = "HEALTHY" if decision.verdict in HEALTHY else decision.verdict
            troubled = decision.verdict in TROUBLE or (before.troubled and decision.verdict not in CALM)
            marks[stream] = Mark(condition, decision.action, decision.fence, decision.generation, troubled, action_told_at=before.action_told_at)
            tell = _is_edge(before, marks[stream], decision) or _still_due(before, decision, now)
            if tell and decision.action in ACTS:
                marks[stream] = replace(marks[stream], action_told_at=now)
        if tell:
            fired.append(decision)
    return fired, marks


def _is_edge(before: Mark, after: Mark, decision: Decision) -> bool:
    if decision.action in ACTS:
        return replace(before, unknown_since=None, unknown_told=False) != after
    if before.unknown_told:
        return True
    if decision.verdict in HEALTHY:
        return before.troubled
    is_new = (before.condition, before.fence, before.generation) != (after.condition, after.fence, after.generation)
    return decision.verdict in TROUBLE and before.condition is not None and is_new


def _still_due(before: Mark, decision: Decision, now: datetime) -> bool:
    return decision.action in ACTS and before.action_told_at is not None and abs(now - before.action_told_at) >= DUE_AGAIN


REST_SECONDS = 10.0
"""Nobody is left unjudged for longer, news or not."""
SPARE_SECONDS = 2.0


def rest(spec: Stream, seen: Observation, verdict: Verdict, now: datetime) -> float:
    """For how many seconds a stream need not be judged again unless something new is known of it.

    Not at all when it is not well. One that is well gives a sign of life, an event, a task, a planned or committed batch,
    once a trigger or every ten seconds, and is read as often: while the last sign is younger than both together nothing can be overdue.
    """
    if verdict not in CALM:
        return 0.0
    if verdict is Verdict.STOPPED:
        return REST_SECONDS
    status, checkpoint = seen.status.value, seen.checkpoint.value
    if status is None or checkpoint is None:
        return 0.0
    signs = [moment for moment in (status.last_event_at, status.tasks_at, checkpoint.last_commit_at, checkpoint.last_offset_at) if moment is not None]
    if not signs:
        return 0.0
    expected = max(spec.trigger_seconds, REST_SECONDS) + min(spec.trigger_seconds, REST_SECONDS) + SPARE_SECONDS
    return min(REST_SECONDS, max(0.0, expected - (now - max(signs)).total_seconds()))
