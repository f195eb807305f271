"""Whose turn it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k2.watchdog.turns import Turns


def test_four_streams_are_read_at_once_at_first() -> None:
    """A small platform knows all of itself within one tick."""
    turns = Turns(dict.fromkeys("abcd", 10.0), 100.0)
    assert turns.due(100.5) == list("abcd") and turns.due(109.9) == []
    assert turns.due(110.03) == list("abcd")


def test_a_thousand_are_spread_over_the_period() -> None:
    """No half second has much more than its share, in the first period and in the later ones."""
    turns = Turns({f"s{n}": 10.0 for n in range(1000)}, 0.0)
    counts = [len(turns.due(tick * 0.5)) for tick in range(61)]
    assert max(counts) <= 52
    assert min(counts[1:]) >= 48


def test_soon_is_once_and_keeps_the_turn() -> None:
    """Who is read out of turn is read in its turn as well."""
    turns = Turns({"a": 10.0, "b": 10.0}, 0.0)
    turns.due(1.0)
    turns.soon(["b"])
    assert turns.due(2.0) == ["b"] and turns.due(3.0) == []
    assert turns.due(10.5) == ["a", "b"]


@given(ticks=st.lists(st.floats(0.01, 40), min_size=1, max_size=50), periods=st.lists(st.floats(0.5, 30), min_size=1, max_size=8))
def test_nobody_is_forgotten_and_nobody_is_read_twice_for_one_turn(ticks: list[float], periods: list[float]) -> None:
    """Over any ticks each stream is read in each of them that ends a period, once; a stall is not made up for."""
    turns = Turns({str(number): period for number, period in enumerate(periods)}, 0.0)
    now, last = 0.0, dict.fromkeys(map(str, range(len(periods))), float("-inf"))
    for tick in ticks:
        now += tick
        found = turns.due(now)
        assert len(found) == len(set(found))
        for name in found:
            last[name] = now
        for name, period in enumerate(periods):
            assert now - last[str(name)] <= period + tick or now < period
