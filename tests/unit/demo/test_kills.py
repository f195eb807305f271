"""How a killed stream came back, from the ledger of launches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from k2.demo.kills import Kill, follow

T0 = datetime(2026, 1, 1, tzinfo=UTC)
A, B = "bronze_binance", "silver_binance"


def launch(stream: str, fence: int, seconds: float, *, commits: bool = True) -> dict[str, Any]:
    """A launch detected at `seconds`, decided, launched and committing one second later each."""
    detected, decided, launched, first = (T0 + timedelta(seconds=seconds + step) for step in range(4))
    return {
        "stream": stream,
        "fence": fence,
        "detected_at": detected,
        "intent_at": decided,
        "launched_at": launched,
        "first_commit_at": first if commits else None,
    }


def test_the_successor_is_the_way_back() -> None:
    """Seconds from the kill; launches before it and of other streams do not count."""
    (found,) = follow([Kill(A, 2, (1,), T0)], [launch(A, 2, -50), launch(B, 3, 1), launch(A, 3, 10)])
    assert (found.detected, found.decided, found.launched, found.first_commit) == (10, 11, 12, 13)


def test_a_successor_that_died_too_is_part_of_the_way() -> None:
    """It was detected and launched with the first one, and committed with the second."""
    (found,) = follow([Kill(A, 2, (1,), T0)], [launch(A, 3, 10, commits=False), launch(A, 4, 20)])
    assert (found.detected, found.first_commit) == (10, 23)


def test_what_follows_the_next_kill_belongs_to_that() -> None:
    """A stream killed twice: the first one's way ends with the driver that was killed next."""
    first, second = follow([Kill(A, 2, (1,), T0), Kill(A, 3, (2,), T0 + timedelta(seconds=15))], [launch(A, 3, 10, commits=False), launch(A, 4, 20)])
    assert (first.launched, first.first_commit) == (12, None)
    assert second.first_commit == 8


def test_nothing_yet() -> None:
    """Before anything happened, every step is missing."""
    (found,) = follow([Kill(A, 2, (1,), T0)], [launch(A, 2, -50)])
    assert (found.detected, found.decided, found.launched, found.first_commit) == (None,) * 4
