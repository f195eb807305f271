"""The error budget of a stream: how long it may fail to do its work, how much of that is used, and how fast. Pure.

A stream does its work while it commits, or has nothing to commit. What was stopped on request does not count, nor does
an outage that ended with nothing to commit: nothing came late by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from k2.registry.observed import Outage
from k2.registry.platform import Slo

Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class Rule:
    """The budget burns too fast when both windows use it at least `rate` times as fast as it is given.

    The long window makes the rule sure, the short one lets it end soon after the trouble has.
    """

    long: timedelta
    short: timedelta
    rate: float


RULES = (Rule(timedelta(hours=6), timedelta(minutes=30), 6.0), Rule(timedelta(days=3), timedelta(hours=6), 1.0))


@dataclass(frozen=True)
class Budget:
    """Of one stream, in seconds, over the days that end now."""

    target_percent: float
    window_days: int
    allowed_seconds: float
    used_seconds: float
    burning: str = ""
    """Why a person should look, in a sentence; empty while it lasts."""

    @property
    def left_seconds(self) -> float:
        """Negative when more was used than is allowed."""
        return self.allowed_seconds - self.used_seconds

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"left_seconds": self.left_seconds}


def spans(outages: Iterable[Outage], now: datetime) -> list[Span]:
    """When a stream did not do its work: rising, and none touches another. One that is open lasts until now."""
    merged: list[Span] = []
    found = [(o.good_at, o.recovered_at or o.over_at or now) for o in outages if o.recovered_by != "idle"]
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif end > start:
            merged.append((start, end))
    return merged


def seconds_since(found: Sequence[Span], since: datetime) -> float:
    """How much of the spans lies after a moment."""
    return sum((end - max(start, since)).total_seconds() for start, end in found if end > since)


def budget(slo: Slo, outages: Iterable[Outage], now: datetime) -> Budget:
    """The budget of the stream whose outages these are. Older ones than the window change nothing."""
    found = spans(outages, now)
    share = 1 - slo.target_percent / 100
    window = timedelta(days=slo.window_days)
    allowed = share * window.total_seconds()
    used = seconds_since(found, now - window)
    return Budget(slo.target_percent, slo.window_days, allowed, used, _burning(found, share, allowed, used, now))


def _burning(found: Sequence[Span], share: float, allowed: float, used: float, now: datetime) -> str:
    if used >= allowed:
        return f"the budget is spent: {minutes(used)} min used of {minutes(allowed)}"
    for rule in RULES:
        if all(seconds_since(found, now - window) >= rule.rate * share * window.total_seconds() for window in (rule.long, rule.short)):
            lost, hours = minutes(seconds_since(found, now - rule.long)), rule.long.total_seconds() / 3600
            return f"{lost} min were lost in the last {hours:g} h, at least {rule.rate:g} times as fast as the budget of {minutes(allowed)} min allows"
    return ""


def minutes(seconds: float) -> str:
    """Seconds as minutes for people."""
    return f"{seconds / 60:.1f}"
