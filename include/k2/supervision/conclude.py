"""What a verdict is made with: decisions about one stream, and readings that are neither missing nor old."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from k2.registry.observed import Decision, Reading

T = TypeVar("T")

READING_LIMIT = timedelta(seconds=30)
"""An older reading is no reading."""
CLOCK_TOLERANCE = timedelta(seconds=5)
"""Of two clocks, and of one that is being corrected. What was noted later than this ahead was noted before the clock was set back."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

Conclude = Callable[..., Decision]
"""A Decision about one stream, from a verdict, an action and a sentence on."""


def unusable(reading: Reading[T], now: datetime) -> str | None:
    """Why nothing may be concluded from a reading; None when it is good."""
    if not reading.known or reading.value is None:
        return reading.error or "it was not read"
    if now - reading.at > READING_LIMIT:
        return f"it was last read {(now - reading.at).total_seconds():.0f} s ago"
    if reading.at - now > CLOCK_TOLERANCE:
        return f"it was read {(reading.at - now).total_seconds():.0f} s from now: the clock was set back"
    return None


def usable(reading: Reading[T], now: datetime) -> T | None:
    return reading.value if unusable(reading, now) is None else None


def past(moment: datetime, now: datetime) -> datetime:
    """The moment a wait counts from. One yet to come counts as long past: a clock that was set back must make nothing wait for it."""
    return moment if moment - now <= CLOCK_TOLERANCE else LONG_AGO
