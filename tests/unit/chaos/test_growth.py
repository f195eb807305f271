"""Slopes, their errors, and what may be concluded from them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.chaos.growth import Commits, commits, judgement, restarts, slope, warm

NUMBERS = st.floats(-1000, 1000)


@given(NUMBERS, NUMBERS, st.integers(3, 50))
def test_a_straight_line_is_found_exactly(rise: float, begin: float, count: int) -> None:
    """Its slope, without error."""
    found = slope([(hour / 10, begin + rise * hour / 10) for hour in range(count)])
    assert found is not None
    assert found.per_hour == pytest.approx(rise, abs=1e-6) and found.error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.8])
def test_the_error_is_how_far_repeated_slopes_lie_apart(kept: float) -> None:
    """A slope of noise lies within two errors of the truth in nineteen of twenty runs, or nearly; also when each sample keeps most of the one before."""
    chance = random.Random(1)

    def noise(count: int) -> Iterator[float]:
        value = chance.gauss(0, 10) / math.sqrt(1 - kept**2)
        for _ in range(count):
            yield value
            value = kept * value + chance.gauss(0, 10)

    found = [slope([(n / 120, 5 * n / 120 + rest) for n, rest in enumerate(noise(240))]) for _ in range(400)]
    within = sum(abs(f.per_hour - 5) < 2 * f.error for f in found if f)
    assert 0.9 < within / len(found) < 0.98


@pytest.mark.parametrize("samples", [[], [(0, 1)], [(0, 1), (1, 2)], [(1, 1), (1, 2), (1, 3)]])
def test_no_line_through_too_little(samples: list[tuple[float, float]]) -> None:
    """Two samples make a line without an error, which would look certain."""
    assert slope(samples) is None


@pytest.mark.parametrize(
    ("rise", "noise", "hours", "said"),
    [
        (lambda h: 10 * h, 1, 2, "leaks"),
        (lambda h: 10 * h, 90, 2, "cannot be told yet"),
        (lambda h: 0.1 * h, 0.5, 2, "does not leak"),
        (lambda h: -5 * h, 1, 2, "does not leak"),
        (lambda h: 0 * h, 60, 2, "cannot be told yet"),
        (lambda h: 100 * h, 1, 0.2, "cannot be told yet"),
        (lambda h: 100 * (1 - math.exp(-3 * h)), 1, 1, "slows down"),
        (lambda h: 30 * h + 0.3 * h**2, 1, 2, "leaks"),
    ],
)
def test_judgement(rise: Callable[[float], float], noise: float, hours: float, said: str) -> None:
    """504 MiB of room are 3 MiB an hour for a week; what rises ever more slowly may be filling what it may have."""
    chance = random.Random(3)
    samples = [(n / 240 * hours, 500 + rise(n / 240 * hours) + chance.gauss(0, noise)) for n in range(240)]
    assert judgement(samples, hours, 504) == said


def test_no_judgement_by_too_little() -> None:
    """Two samples are no line."""
    assert judgement([(0, 1), (5, 2)], 5, 504) == "cannot be told yet"


def test_warm_up_is_left_out() -> None:
    """The first quarter."""
    assert warm([(h, 0.0) for h in range(9)]) == [(h, 0.0) for h in range(2, 9)]
    assert warm([]) == []


def test_commits_are_compared_over_time() -> None:
    """The p95 of both halves, so that a rise shows."""
    assert commits([(n / 10, 1.0 if n < 10 else 2.0) for n in range(20)]) == Commits(20, 1.0, 2.0, 1.0, 2.0)
    assert commits([(0, 1)]) is None


def test_restarts_are_risen_fences() -> None:
    """Of every stream together."""
    assert restarts({"a": 1, "b": 4}, {"a": 3, "b": 4}) == 2
