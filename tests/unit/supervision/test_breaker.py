"""The leaky bucket: what fills it, what empties it."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Death, FailureClass
from k2.registry.platform import Restart, load_platform
from k2.supervision.breaker import closed_until, level
from k2.supervision.policy import backoff

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESTART: Restart = load_platform().restart

DEATHS = st.lists(
    st.builds(
        Death,
        fence=st.integers(1, 99),
        generation=st.integers(1, 3),
        at=st.integers(0, 7200).map(lambda s: NOW - timedelta(seconds=s)),
        kind=st.sampled_from(FailureClass),
        exit_code=st.sampled_from([None, -9, -15, 70, 71]),
        commits=st.integers(0, 5),
    ),
    max_size=20,
)


def died(seconds_ago: float, **fields: object) -> Death:
    return replace(Death(1, 1, NOW - timedelta(seconds=seconds_ago), FailureClass.INFRASTRUCTURE, 71), **fields)  # type: ignore[arg-type]


def held(deaths: list[Death], generation: int = 1) -> bool:
    return closed_until(RESTART, deaths, generation, NOW) is not None


def test_five_deaths_within_minutes_are_a_crash_loop() -> None:
    """Four are not."""
    assert held([died(20 * n) for n in range(5)])
    assert not held([died(20 * n) for n in range(4)])


def test_a_driver_that_dies_shortly_after_its_first_commit_is_one_too() -> None:
    """One commit each does not pay for a death."""
    assert held([died(30 * n, commits=1) for n in range(8)])


def test_work_pays() -> None:
    """A launch that committed three batches has paid: that stream is never held, however often it dies."""
    assert not held([died(20 * n, commits=3) for n in range(20)])


def test_a_stream_that_somebody_kills_again_and_again_is_not_held() -> None:
    """A kill from outside weighs half, and every commit pays: eight kills in two minutes, half of them before a first commit."""
    assert not held([died(15 * n, exit_code=-9, commits=n % 2) for n in range(8)])
    assert held([died(15 * n, exit_code=-9) for n in range(12)]), "but ten without a single commit may be the kernel's, for its memory"


def test_a_person_empties_it() -> None:
    """Deaths before the newest request do not count."""
    assert not held([died(20 * n) for n in range(9)], generation=2)


@given(DEATHS)
def test_what_a_dependency_or_the_fence_did_is_never_counted(deaths: list[Death]) -> None:
    """Whatever else there is."""
    for kind in (FailureClass.DEPENDENCY, FailureClass.FENCED):
        assert level(RESTART, [replace(d, kind=kind) for d in deaths], 1, NOW) == 0


@given(DEATHS, st.integers(1, 3))
def test_it_always_leaks(deaths: list[Death], generation: int) -> None:
    """What it holds a stream for is finite, is over when it says so, and everything is gone after the whole time."""
    until = closed_until(RESTART, deaths, generation, NOW)
    assert until is None or until > NOW
    if until is not None:
        assert closed_until(RESTART, deaths, generation, until + timedelta(milliseconds=1)) is None
    assert level(RESTART, deaths, generation, NOW + timedelta(days=1)) == 0


@given(DEATHS, st.integers(0, 20), st.integers(0, 3600))
def test_time_and_commits_only_empty_it(deaths: list[Death], commits: int, seconds: int) -> None:
    """Never fuller later, never fuller for having worked."""
    before = level(RESTART, deaths, 1, NOW)
    assert 0 <= level(RESTART, deaths, 1, NOW + timedelta(seconds=seconds), commits) <= before


@given(st.randoms(use_true_random=False), st.floats(4, 25), st.sampled_from([5.0, 10.0]))
def test_twenty_random_kills_hold_no_stream(chance: random.Random, start_seconds: float, trigger: float) -> None:
    """One every one to ten seconds over four streams, whichever lives, before or after its first commit, with every pause of the backoff."""
    deaths: dict[str, list[Death]] = {name: [] for name in "abcd"}
    lives_from = dict.fromkeys(deaths, -1000.0)
    clock = 0.0
    for _ in range(20):
        clock += chance.uniform(1, 10)
        while not (living := [name for name, since in lives_from.items() if since <= clock]):
            clock += 0.5
        name = chance.choice(living)
        commits = max(0, int((clock - lives_from[name] - start_seconds) / trigger) + 1)
        deaths[name].append(Death(1, 1, NOW + timedelta(seconds=clock), FailureClass.INFRASTRUCTURE, -9, commits))
        assert closed_until(RESTART, deaths[name], 1, NOW + timedelta(seconds=clock)) is None, [(d.at, d.commits) for d in deaths[name]]
        lives_from[name] = clock + 1.5 + backoff(RESTART, len(deaths[name])).total_seconds() * 0.8
