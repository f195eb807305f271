"""Streams that stay down: a restart mends a death or a hang within a minute, and somebody must look when it has not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from k2.registry.observed import Decision, Unmended, Verdict
from k2.supervision.order import ONE_CAUSE

PAGE_AFTER = timedelta(minutes=5)


def together(decision: Decision, died: Mapping[str, datetime]) -> list[str]:
    """The streams that went down at one time with one that died, in order."""
    mine = died.get(decision.stream)
    if mine is None or decision.verdict is not Verdict.DEAD:
        return []
    return [stream for stream, at in sorted(died.items()) if stream != decision.stream and abs(at - mine) <= ONE_CAUSE]


def still_down(opened_at: datetime, died: Mapping[str, datetime], told: Collection[str], now: datetime) -> bool:
    """Whether an incident that was opened then tells of others that are not back yet; `told` are those that have an incident of their own."""
    if now - opened_at >= PAGE_AFTER:
        return False
    return any(abs(at - opened_at) <= ONE_CAUSE for stream, at in died.items() if stream not in told)


def at_one_time(unmended: Iterable[Unmended]) -> list[list[Unmended]]:
    """Outages, oldest first, in groups that began within a minute of their first one."""
    groups: list[list[Unmended]] = []
    for outage in unmended:
        if groups and outage.detected_at - groups[-1][0].detected_at <= ONE_CAUSE:
            groups[-1].append(outage)
        else:
            groups.append([outage])
    return groups
