"""When a feed handler connects again and when it gives up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.feeds.backoff import Backoff, GaveUp
from k2.registry.platform import Reconnect

POLICY = Reconnect(first_seconds=5, cap_seconds=60, attempts=10)


@given(st.integers())
def test_waits_double_up_to_the_cap(seed: int) -> None:
    """Each wait lies between half of its nominal time and the whole of it, and never above the cap."""
    backoff = Backoff(POLICY, random.Random(seed))
    waits = [backoff.after(delivered=False, lasted_seconds=0) for _ in range(9)]
    for wait, nominal in zip(waits, [5, 10, 20, 40, 60, 60, 60, 60, 60], strict=True):
        assert nominal / 2 <= wait <= nominal


def test_gives_up_after_the_attempts() -> None:
    """The tenth failure in a row is the last."""
    backoff = Backoff(POLICY)
    for _ in range(9):
        backoff.after(delivered=False, lasted_seconds=1000)
    with pytest.raises(GaveUp, match="10 connections"):
        backoff.after(delivered=False, lasted_seconds=1000)


def test_only_a_trade_forgives() -> None:
    """Failures are counted on over connections that stood but brought nothing, and forgotten when a trade arrives."""
    backoff = Backoff(POLICY)
    for _ in range(5):
        backoff.after(delivered=False, lasted_seconds=3600)
    assert backoff.failures == 5
    backoff.delivered()
    assert backoff.after(delivered=False, lasted_seconds=0) <= 5


def test_a_good_connection_is_followed_at_once() -> None:
    """After a connection that delivered and lasted nothing is waited for; after a short one the first wait."""
    backoff = Backoff(POLICY)
    assert backoff.after(delivered=True, lasted_seconds=60) == 0
    assert 2.5 <= backoff.after(delivered=True, lasted_seconds=0.1) <= 5
