"""When an outage of a stream begins, when the stream has recovered, and when it has caught up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from k2.registry.observed import Decision, Observation, Outage, Verdict
from k2.registry.platform import Stream
from k2.supervision.conclude import usable
from k2.supervision.verdicts import in_trouble


@dataclass(frozen=True)
class Change:
    """What one look changes: the outage that was followed, as it is now, and one that begins. None: nothing."""

    followed: Outage | None = None
    opened: Outage | None = None


def follow(followed: Outage | None, observation: Observation, decision: Decision, spec: Stream, now: datetime) -> Change:
    """What a look says of the outage that is followed, if one is, and whether another begins.

    Restarts that die before they commit belong to the outage that they answer. `opened.good_at` is the moment of
    detection: what is known of better moments is elsewhere (`last_good`).
    """
    if followed is not None and observation.at <= max(followed.detected_at, followed.recovered_at or followed.detected_at):
        return Change()
    if followed is not None and decision.verdict in (Verdict.STOPPED, Verdict.STOPPING) and _unwanted(observation):
        return Change(replace(followed, over_at=now, outcome="stopped"))
    current = followed
    if current is not None and current.recovered_at is None:
        current = _recovered(current, observation, decision, now)
    if in_trouble(decision):
        if current is not None and current.recovered_at is None:
            return Change()
        opened = Outage(decision.stream, decision.verdict, decision.because, decision.fence, detected := decision.detected_at or now, detected)
        return Change(replace(current, over_at=now, outcome="interrupted") if current is not None else None, opened)
    if current is not None and current.recovered_at is not None and _caught_up(current.recovered_at, observation, decision, spec, now):
        current = replace(current, caught_up_at=now, over_at=now, outcome="caught_up")
    return Change(current if current != followed else None)


def last_good(detected_at: datetime, committed_at: datetime | None, idle_at: datetime | None, asked_at: datetime | None) -> datetime:
    """The last moment at which a stream in trouble did its work.

    `committed_at`: its last commit. `idle_at`: when a look last saw that it had nothing to commit. `asked_at`: when it
    was launched, if it has not committed since. Never later than the detection.
    """
    return min(detected_at, max((moment for moment in (committed_at, idle_at, asked_at) if moment is not None), default=detected_at))


def _unwanted(observation: Observation) -> bool:
    return observation.wanted.value is not None and observation.wanted.value.desired != "running"


def _recovered(outage: Outage, observation: Observation, decision: Decision, now: datetime) -> Outage:
    """The outage with its end, if the look shows that the stream commits again or has nothing to commit."""
    wanted, checkpoint = observation.wanted.value, usable(observation.checkpoint, now)
    if wanted is None:
        return outage
    moment, by = None, "commit"
    if wanted.fence > outage.fence:
        moment = wanted.first_commit_at
    elif checkpoint is not None and checkpoint.last_commit_at is not None and checkpoint.last_commit_at > outage.detected_at:
        moment = checkpoint.last_commit_at
    if moment is None and _idle_since(outage.detected_at, observation, decision):
        moment, by = now, "idle"
    if moment is None:
        return outage
    return replace(outage, recovered_at=max(moment, outage.detected_at), recovered_by=by, recovered_fence=wanted.fence)


def _idle_since(moment: datetime, observation: Observation, decision: Decision) -> bool:
    """Whether the stream is idle by readings of after that moment: what was read before a death says nothing of its end."""
    return decision.verdict is Verdict.IDLE and min(observation.checkpoint.at, observation.head.at) > moment


def _caught_up(recovered_at: datetime, observation: Observation, decision: Decision, spec: Stream, now: datetime) -> bool:
    if _idle_since(recovered_at, observation, decision):
        return True
    head, status = usable(observation.head, now), usable(observation.status, now)
    if decision.verdict is not Verdict.PROGRESSING or head is None or head.lag_seconds is None or observation.head.at <= recovered_at:
        return False
    batch = status.batch_seconds if status is not None else None
    return timedelta(seconds=head.lag_seconds) <= timedelta(seconds=spec.trigger_seconds + (batch or 0.0))
