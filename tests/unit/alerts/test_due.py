"""What people have to be told of an incident."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.alerts.due import REMIND_AFTER, Due, due

NOW = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    """A page that people know as it is."""
    told = {"told_opened_at": NOW, "told_at": NOW, "told_times": 1}
    return {"severity": "page", "times": 1, "resolved_at": None, "told_resolved_at": None} | told | changes


NEVER = {"told_opened_at": None, "told_at": None, "told_times": 0}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, None),
        (NEVER, Due.OPENED),
        ({"times": 3}, Due.AGAIN),
        ({"resolved_at": NOW}, Due.RESOLVED),
        (NEVER | {"resolved_at": NOW}, Due.RESOLVED),
        ({"resolved_at": NOW, "told_resolved_at": NOW}, None),
        ({"told_at": NOW - REMIND_AFTER}, Due.REMINDER),
        ({"told_at": NOW - REMIND_AFTER, "severity": "ticket"}, None),
        ({"told_at": NOW - REMIND_AFTER + timedelta(seconds=1)}, None),
    ],
)
def test_what_is_told(changes: dict[str, Any], what: Due | None) -> None:
    """Each change once, and a page that stands again after half an hour."""
    assert due(row(**changes), NOW) is what


@given(times=st.integers(1, 9), told=st.integers(0, 9), over=st.booleans(), severity=st.sampled_from(["page", "ticket", "digest"]))
def test_once_told_there_is_silence(times: int, told: int, over: bool, severity: str) -> None:
    """Whatever was due, after it was told nothing is due at the same moment."""
    incident = row(times=times, told_times=told, resolved_at=NOW if over else None, severity=severity)
    if due(incident, NOW) is not None:
        told_now = incident | {"told_at": NOW, "told_times": times, "told_opened_at": NOW, "told_resolved_at": NOW if over else None}
        assert due(told_now, NOW) is None
