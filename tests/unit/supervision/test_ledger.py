"""From what was written down to the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Outage
from k2.supervision.ledger import STEPS, Entry, entries, summarize

STREAM = "bronze_binance"
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def launch(fence: int, seconds: float, *, stream: str = STREAM, how: str = "spare", decided: float | None = None) -> dict[str, Any]:
    """A start whose intent was recorded at that second, launched a tenth later."""
    return {
        "stream": stream,
        "fence": fence,
        "decided_at": at(decided) if decided is not None else None,
        "intent_at": at(seconds),
        "launched_at": at(seconds + 0.1),
        "how": how,
    }


RECOVERED = Outage(STREAM, "DEAD", "signal 9", 4, at(-2), at(0), at(4), "commit", 5, at(9), at(9), "caught_up", 1)


def test_the_steps_of_a_death() -> None:
    """Each step is the time since the one before it."""
    (entry,) = entries([RECOVERED], [launch(4, -50), launch(5, 2, decided=1.5), launch(6, 100)])
    assert entry.fences == (5,) and entry.how == "spare" and entry.state == "caught up"
    expected = {"detected": 2.0, "decided": 1.5, "fenced": 0.5, "launched": 0.1, "recovered": 1.9, "caught up": 5.0}
    assert entry.steps == pytest.approx(expected)
    assert (entry.to_recovery, entry.down) == (4.0, 6.0)


def test_restarts_that_died_belong_to_the_same_outage() -> None:
    """The way begins with the first start; the last one is how it came back."""
    outage = replace(RECOVERED, recovered_at=at(40), recovered_fence=7, caught_up_at=None, over_at=None, outcome=None)
    (entry,) = entries([outage], [launch(5, 1, decided=0.5), launch(6, 10), launch(7, 30, how="cold")])
    assert entry.fences == (5, 6, 7) and entry.how == "cold" and entry.state == "catching up"
    assert entry.moments["fenced"] == at(1) and entry.to_recovery == 40.0


def test_what_was_not_reached_is_none() -> None:
    """An open outage shows how far it is, and a step that was not needed is no part of the way."""
    open_ = Outage(STREAM, "DEAD", "-", 4, at(-2), at(0))
    (entry,) = entries([open_], [])
    assert entry.steps == {"detected": 2.0} | dict.fromkeys(STEPS[1:], None)
    assert (entry.to_recovery, entry.down, entry.how, entry.state) == (None, None, None, "open")
    waited = replace(open_, verdict="WAITING_DEPENDENCY", recovered_at=at(60), recovered_by="commit", recovered_fence=4)
    (entry,) = entries([waited], [launch(4, -50), launch(5, 90)])
    assert entry.fences == () and entry.steps["recovered"] == 60.0 and entry.steps["launched"] is None


def test_starts_go_to_the_outage_that_they_answered() -> None:
    """Of its stream, up to the fence that recovered; of one without recovery, up to the next outage's driver or to its end."""
    first = Outage(STREAM, "DEAD", "-", 1, at(0), at(1), at(9), "commit", 3, None, at(10), "interrupted", 1)
    second = Outage(STREAM, "DEAD", "-", 3, at(10), at(11), over_at=at(20), outcome="stopped", id=2)
    third = Outage(STREAM, "HUNG_SOURCE", "-", 6, at(100), at(110), id=3)
    other = Outage("bronze_kraken", "DEAD", "-", 1, at(0), at(2), id=4)
    rows = [launch(fence, second) for fence, second in ((1, -9), (2, 2), (3, 5), (4, 12), (5, 30), (6, 60), (7, 120))]
    found = entries([third, other, second, first], [*reversed(rows), launch(2, 3, stream="bronze_kraken")])
    assert [(e.outage.id, e.fences) for e in found] == [(1, (2, 3)), (4, (2,)), (2, (4,)), (3, (7,))]


def test_a_start_after_a_stop_is_not_how_it_recovered() -> None:
    """Fence 5 was asked for after the stream had been stopped: not part of the outage that the stop ended."""
    stopped = Outage(STREAM, "DEAD", "-", 3, at(0), at(1), over_at=at(20), outcome="stopped")
    (entry,) = entries([stopped], [launch(4, 2), launch(5, 30)])
    assert entry.fences == (4,) and entry.state == "stopped"


MOMENT = st.none() | st.floats(-1000, 1000).map(at)


@given(st.floats(0, 1000), st.lists(MOMENT, min_size=5, max_size=5))
def test_the_steps_add_up_and_none_is_negative(good: float, moments: list[datetime | None]) -> None:
    """Whatever the clocks say: the steps that were reached add up to the time from the last good moment to the last step."""
    decided, fenced, launched, recovered, caught_up = moments
    outage = Outage(STREAM, "DEAD", "-", 4, at(-good), at(0), recovered, "commit" if recovered else None, 5, caught_up)
    entry = Entry(outage, ({"fence": 5, "decided_at": decided, "intent_at": fenced, "launched_at": launched, "how": "cold"},))
    steps = [seconds for seconds in entry.steps.values() if seconds is not None]
    assert all(seconds >= 0 for seconds in steps)
    last = max(moment for moment in entry.moments.values() if moment is not None)
    assert sum(steps) == pytest.approx((last - outage.good_at).total_seconds(), abs=1e-3)
    assert list(entry.steps) == list(STEPS)
    if entry.to_recovery is not None:
        assert 0 <= entry.to_recovery <= (entry.down or 0) + 1e-9


def test_a_summary_counts_and_measures() -> None:
    """Twenty recoveries of 1 to 20 s and one outage that is open, in an hour."""
    done = [Entry(Outage(STREAM, "DEAD", "-", n, at(100 * n - 1), at(100 * n), at(100 * n + n), "commit", n + 1)) for n in range(1, 21)]
    found = summarize(STREAM, [*done, Entry(Outage(STREAM, "HUNG_SOURCE", "-", 21, at(2990), at(3000)))], timedelta(hours=1))
    assert (found.outages, found.open, found.verdicts) == (21, 1, {"DEAD": 20, "HUNG_SOURCE": 1})
    assert (found.to_recovery_p50, found.to_recovery_p95, found.down_p50) == (10.0, 19.0, 11.0)
    assert found.between == pytest.approx((3600 - sum(range(2, 22))) / 21)


def test_a_summary_of_nothing_claims_nothing() -> None:
    """No recovery was measured, so there is no figure for one."""
    found = summarize(STREAM, [], timedelta(hours=1))
    assert (found.outages, found.to_recovery_p50, found.down_p95, found.between) == (0, None, None, None)
