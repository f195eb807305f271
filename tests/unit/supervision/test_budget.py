"""The error budget: what uses it, what is left, and when it burns too fast."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Outage
from k2.registry.platform import Slo
from k2.supervision.budget import RULES, budget, seconds_since, spans

NOW = datetime(2026, 1, 29, tzinfo=UTC)
SLO = Slo(target_percent=99.5, window_days=28)
ALLOWED = 0.005 * 28 * 86_400


def outage(ago_minutes: float, lasted_minutes: float | None, *, by: str | None = "commit", stopped: float | None = None) -> Outage:
    """One whose last good moment was so long ago; without a length it has not recovered."""
    good = NOW - timedelta(minutes=ago_minutes)
    recovered = good + timedelta(minutes=lasted_minutes) if lasted_minutes is not None else None
    over = good + timedelta(minutes=stopped) if stopped is not None else None
    return Outage("s", "DEAD", "-", 1, good, good, recovered, by if recovered else None, 2, over_at=over, outcome="stopped" if over else None)


def test_nothing_used() -> None:
    """Without outages all of it is left, and nothing burns."""
    found = budget(SLO, [], NOW)
    assert found.allowed_seconds == pytest.approx(ALLOWED) and found.left_seconds == found.allowed_seconds and found.burning == ""


@pytest.mark.parametrize(
    ("found", "minutes"),
    [
        (outage(10_000, 5), 5),
        (outage(3, None), 3),
        (outage(600, None, stopped=20), 20),
        (outage(600, 20, by="idle"), 0),
        (outage(28 * 1440 + 5, 15), 10),
        (outage(29 * 1440, 5), 0),
    ],
    ids=["recovered", "open until now", "until it was stopped", "nothing was to commit", "only what lies in the window", "before the window"],
)
def test_what_uses_it(found: Outage, minutes: float) -> None:
    """Seconds from the last good moment to the recovery, within the window, if there was something to commit."""
    assert budget(SLO, [found], NOW).used_seconds == pytest.approx(60 * minutes)


def test_time_is_not_used_twice() -> None:
    """Outages that overlap count once."""
    assert budget(SLO, [outage(100, 10), outage(95, 10), outage(98, 2)], NOW).used_seconds == pytest.approx(15 * 60)


def test_usual_recoveries_do_not_burn() -> None:
    """A kill that is back within ten seconds, every hour of the last three days."""
    assert budget(SLO, [outage(60 * n + 20, 10 / 60) for n in range(72)], NOW).burning == ""


def test_a_long_outage_burns_until_it_has_been_over_for_a_while() -> None:
    """Eleven minutes lost: too fast while it is fresh. Half an hour after its end the short window is clear."""
    assert "6 times as fast" in budget(SLO, [outage(11, None)], NOW).burning
    assert "6 times as fast" in budget(SLO, [outage(31, 11)], NOW).burning
    assert budget(SLO, [outage(51, 11)], NOW).burning == ""


def test_a_slow_burn_is_seen_too() -> None:
    """Two minutes lost every six hours, for three days: faster than the budget is given, in both windows."""
    slow = [outage(360 * n + 60, 2) for n in range(12)]
    assert "in the last 72 h" in budget(SLO, slow, NOW).burning
    assert budget(SLO, slow[1:], NOW).burning == "", "it has stopped"


def test_a_spent_budget_is_told_however_slowly_it_went() -> None:
    """As long as the window holds what spent it."""
    found = budget(SLO, [outage(20_000, 300)], NOW)
    assert found.left_seconds < 0 and "spent: 300.0 min used of 201.6" in found.burning


@given(st.lists(st.tuples(st.floats(0, 40_000), st.none() | st.floats(0, 500), st.sampled_from(["commit", "idle"]))))
def test_the_arithmetic_holds(rows: list[tuple[float, float | None, str]]) -> None:
    """Spans rise apart; a longer window never holds less; what is used is no more than the window, nor than the sum of all outages."""
    found = [outage(ago, None if lasted is None else min(lasted, ago), by=by) for ago, lasted, by in rows]
    merged = spans(found, NOW)
    assert all(a[1] < b[0] for a, b in zip(merged, merged[1:], strict=False)) and all(start < end for start, end in merged)
    windows = sorted({w for rule in RULES for w in (rule.short, rule.long)})
    lost = [seconds_since(merged, NOW - window) for window in windows]
    assert lost == sorted(lost)
    got = budget(SLO, found, NOW)
    assert 0 <= got.used_seconds <= min(28 * 86_400, sum(((o.recovered_at or NOW) - o.good_at).total_seconds() for o in found)) + 1e-3
    assert got.left_seconds == got.allowed_seconds - got.used_seconds
