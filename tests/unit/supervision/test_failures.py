"""Classes of deaths, and what makes one poison."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Checkpoint, Death, Driver, DriverState, ExitCode, Failure, FailureClass, Wanted
from k2.supervision.failures import commits, deaths, failure_class, poison, records_in_words, streak

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BLAMED = Failure("ArithmeticException-1", 7, {"trades": {"2": [[40, 40]]}}, True)
QUERY = Death(4, 1, NOW, FailureClass.QUERY, ExitCode.QUERY_FAILED, failure=BLAMED)
KILLED = Death(3, 1, NOW, FailureClass.INFRASTRUCTURE, -9)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (70, "query"),
        (71, "infrastructure"),
        (74, "infrastructure"),
        (75, "dependency"),
        (65, "incompatible"),
        (78, "config"),
        (86, "fenced"),
        (-9, "infrastructure"),
    ],
)
def test_every_exit_code_has_a_class(code: int, kind: str) -> None:
    """Those of a driver by name, a signal as infrastructure."""
    assert failure_class(code) == kind


@given(st.none() | st.integers())
def test_the_class_is_total(code: int | None) -> None:
    """No exit code is without one."""
    assert failure_class(code) in FailureClass


def test_the_same_failure_at_the_same_batch_twice_is_poison() -> None:
    """Also when it was killed in between; what the newest blames counts."""
    assert poison([QUERY, QUERY]) == BLAMED
    assert poison([QUERY, KILLED, replace(QUERY, failure=Failure("ArithmeticException-1", 7))]) == BLAMED


@pytest.mark.parametrize(
    "lately",
    [
        [],
        [QUERY],
        [KILLED, QUERY, QUERY],
        [QUERY, replace(QUERY, failure=replace(BLAMED, batch=6))],
        [QUERY, replace(QUERY, failure=replace(BLAMED, fingerprint="other"))],
        [replace(QUERY, failure=Failure("", 7))] * 2,
        [replace(QUERY, failure=Failure("x", None))] * 2,
        [replace(QUERY, kind=FailureClass.INFRASTRUCTURE)] * 2,
        [replace(QUERY, kind=FailureClass.DEPENDENCY)] * 2,
    ],
)
def test_what_is_no_poison(lately: list[Death]) -> None:
    """One failure, another batch, another failure, an unknown batch, or a class that says nothing about records."""
    assert poison(lately) is None


def test_a_death_that_is_not_recorded_yet_is_among_them() -> None:
    """Once: as long as the ledger lacks it, with the batches that the launch is known to have committed."""
    wanted = Wanted("running", 2, 5, launch_generation=2, first_commit_batch=7, known_batch=8, lately=(KILLED,))
    driver = Driver(DriverState.EXITED, 5, exit_code=70, ended_at=NOW, failure=BLAMED)
    found = deaths(wanted, driver, Checkpoint("q", 10, 9, NOW, {}))
    assert found == (Death(5, 2, NOW, FailureClass.QUERY, 70, commits=3, failure=BLAMED), KILLED)
    assert deaths(replace(wanted, lately=found), driver, None) == found
    assert deaths(wanted, replace(driver, fence=4), None) == (KILLED,)
    assert deaths(wanted, replace(driver, asked=True), None) == (KILLED,)
    assert commits(replace(wanted, first_commit_batch=None), None) == 0


def test_a_streak_is_broken_by_commits_and_by_a_death_that_counts() -> None:
    """Waiting longer each time is for a dependency that never lets it get on."""
    away = Death(9, 1, NOW - timedelta(seconds=1), FailureClass.DEPENDENCY, 75)
    assert streak([away, away, KILLED, away]) == 2
    assert streak([away, replace(away, commits=2), away]) == 2
    assert streak([KILLED, away]) == 0


def test_records_in_words() -> None:
    """Short, in the order of partitions."""
    assert records_in_words({"trades": {"10": [[1, 1]], "2": [[4, 9], [12, 12]]}}) == "trades partition 2 offset 4 to 9, 12; trades partition 10 offset 1"
    assert records_in_words(None) == records_in_words({}) == "records that nobody could name"
