"""What a verdict is made with: decisions about one stream, and readings that are neither missing nor old."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from k2.registry.observed import Decision, Reading

T = TypeVar("T")

READING_LIMIT = timedelta(seconds=30)
"""An older reading is no reading."""

Conclude = Callable[..., Decision]
"""A Decision about one stream, from a verdict, an action and a sentence on."""


def unusable(reading: Reading[T], now: datetime) -> str | None:
    """Why nothing may be concluded from a reading; None when it is good."""
    if not reading.known or reading.value is None:
        return reading.error or "it was not read"
    if now - reading.at > READING_LIMIT:
        return f"it was last read {(now - reading.at).total_seconds():.0f} s ago"
    return None


def usable(reading: Reading[T], now: datetime) -> T | None:
    return reading.value if unusable(reading, now) is None else None
