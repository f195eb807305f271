"""What people have to be told of an incident now: its opening, its return, its end, or that it still stands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

REMIND_AFTER = timedelta(minutes=30)


class Due(StrEnum):
    OPENED = "opened"
    AGAIN = "again"
    """It was resolved and has come back."""
    RESOLVED = "resolved"
    REMINDER = "reminder"
    """A page that nobody has heard of for a while, and that still stands."""


def due(incident: Mapping[str, Any], now: datetime) -> Due | None:
    """What to tell of one row of k2.incidents; None when people know it as it is."""
    if incident["resolved_at"] is not None:
        return Due.RESOLVED if incident["told_resolved_at"] is None else None
    if incident["told_opened_at"] is None:
        return Due.OPENED
    if incident["told_times"] < incident["times"]:
        return Due.AGAIN
    if incident["severity"] == "page" and now - incident["told_at"] >= REMIND_AFTER:
        return Due.REMINDER
    return None
