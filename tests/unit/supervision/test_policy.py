"""Backoff and forgiveness."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Checkpoint, Wanted
from k2.registry.platform import Breaker, Forgiveness, Restart
from k2.supervision.policy import JITTER, backoff, forgivable, jitter, start_not_before

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESTART = Restart(
    backoff_seconds=(0, 5, 10, 20, 40, 80, 160, 300),
    forgiven_after=Forgiveness(commits=3, minutes=10),
    breaker=Breaker(deaths=5, minutes=60),
    at_once=2,
    start_timeout_seconds=180,
    drain_timeout_seconds=60,
)
WANTED = Wanted("running", 1, 4, 1, deaths=3, first_commit_at=NOW - timedelta(minutes=10), first_commit_batch=20)
CHECKPOINT = Checkpoint("q", 22, 22, NOW, {})


@pytest.mark.parametrize(("deaths", "seconds"), [(0, 0), (1, 0), (2, 5), (3, 10), (8, 300), (9, 300), (1000, 300)])
def test_backoff_steps(deaths: int, seconds: float) -> None:
    """The first start after a death is immediate, each later one waits longer, up to the last step."""
    assert backoff(RESTART, deaths).total_seconds() == seconds


@given(st.text(min_size=1), st.integers(0, 2**40), st.integers(0, 50))
def test_the_wait_rises_and_is_capped(stream: str, fence: int, deaths: int) -> None:
    """With its jitter too, a wait is never shorter after one more death, and never more than the cap and its jitter."""
    waits = [(start_not_before(RESTART, stream, fence, n, NOW) - NOW).total_seconds() for n in (deaths, deaths + 1)]
    assert 0 <= waits[0] <= waits[1] <= 300 * (1 + JITTER)


@given(st.text(), st.integers(0, 2**40))
def test_jitter_is_bounded_and_the_same_for_everybody(stream: str, fence: int) -> None:
    """Within 20 % of 1, from the stream and its fence alone."""
    assert 1 - JITTER <= jitter(stream, fence) <= 1 + JITTER
    assert jitter(stream, fence) == jitter(str(stream), int(fence))


def test_jitter_spreads() -> None:
    """Streams that die of one cause do not start at one moment."""
    found = [jitter(f"stream_{n}", 1) for n in range(100)]
    assert max(found) - min(found) > JITTER


def test_forgiven_after_commits_and_minutes() -> None:
    """Three commits and ten minutes after the first one, deaths are forgiven."""
    assert forgivable(RESTART, WANTED, CHECKPOINT, NOW)


@pytest.mark.parametrize(
    ("wanted", "checkpoint"),
    [
        ({"deaths": 0}, {}),
        ({"first_commit_at": NOW - timedelta(minutes=9, seconds=59)}, {}),
        ({"first_commit_at": None}, {}),
        ({"first_commit_batch": None}, {}),
        ({"first_commit_batch": 21}, {}),
        ({"ended_at": NOW}, {}),
        ({}, {"last_commit_batch": None}),
        ({}, {"last_commit_batch": 21}),
    ],
)
def test_not_forgiven_before(wanted: dict[str, object], checkpoint: dict[str, object]) -> None:
    """Uptime alone forgives nothing, nor does a launch that has ended."""
    assert not forgivable(RESTART, replace(WANTED, **wanted), replace(CHECKPOINT, **checkpoint), NOW)
