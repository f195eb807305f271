"""Of which decisions people are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from k2.registry.observed import Action, Decision, Verdict
from k2.supervision.verdicts import HUNG, TROUBLE, in_trouble

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def hang(verdict: Verdict, action: Action, seconds: float | None = None) -> Decision:
    return Decision("s", verdict, action, "x", not_before=None if seconds is None else NOW + timedelta(seconds=seconds), detected_at=NOW)


@pytest.mark.parametrize("verdict", sorted(HUNG & TROUBLE))
def test_a_hang_is_told_once_it_stands_or_its_restart_is_put_off(verdict: Verdict) -> None:
    """One that may be a clock that was set forward is not; a backoff, a breaker and other streams that go first silence nobody."""
    assert in_trouble(hang(verdict, Action.START))
    assert not in_trouble(hang(verdict, Action.WAIT, 12))
    assert in_trouble(hang(verdict, Action.WAIT, 300)) and in_trouble(hang(verdict, Action.WAIT))


def test_a_suspicion_is_told_when_it_is_acted_on() -> None:
    """Never before."""
    assert in_trouble(hang(Verdict.SUSPECT_DRIVER, Action.START))
    assert not in_trouble(hang(Verdict.SUSPECT_DRIVER, Action.WAIT, 300))
