"""Readings against thresholds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.health.checks import Check, CheckResult, Status, counts, dlq_rate, grade, measured, share, stream, unknown, worst
from k2.registry.observed import Verdict
from k2.registry.platform import Threshold
from k2.supervision.verdicts import HELD, HUNG

LIMIT = Threshold(yellow=80, red=90)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (0, Status.GREEN),
        (79.999, Status.GREEN),
        (80, Status.YELLOW),
        (90, Status.YELLOW),
        (90.001, Status.RED),
        (float("nan"), Status.UNKNOWN),
        (float("inf"), Status.RED),
    ],
)
def test_grade_at_the_limits(value: float, status: Status) -> None:
    """Green below yellow, yellow from it on, red above red, and what is no number is unknown."""
    assert grade(value, LIMIT) is status


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_more_is_never_better(a: float, b: float) -> None:
    """A higher value never has a milder status."""
    order = [Status.GREEN, Status.YELLOW, Status.RED]
    low, high = sorted((a, b))
    assert order.index(grade(low, LIMIT)) <= order.index(grade(high, LIMIT))


@pytest.mark.parametrize(
    ("silver", "dlq", "value", "status"),
    [
        (9999, 1, 0.01, Status.GREEN),
        (999, 1, 0.1, Status.YELLOW),
        (99, 1, 1.0, Status.YELLOW),
        (98, 2, 2.0, Status.RED),
        (0, 5, 100.0, Status.RED),
    ],
)
def test_dlq_rate_is_the_share_of_all_rows(silver: int, dlq: int, value: float, status: Status) -> None:
    """dlq / (silver + dlq), both of the same window."""
    result = dlq_rate("binance", silver, dlq, Threshold(yellow=0.1, red=1.0), "the last 24 h")
    assert (result.value, result.status) == (value, status)
    assert f"{dlq:,} of {silver + dlq:,} rows in the last 24 h" == result.evidence


def test_no_rows_have_no_rate() -> None:
    """Nothing read is not the same as nothing wrong."""
    assert dlq_rate("kraken", 0, 0, LIMIT, "the last 24 h").status is Status.UNKNOWN


def test_share_of_a_budget() -> None:
    """Memory and batches are judged in per cent of what they may take."""
    result = share(Check.MEMORY, "kafka", 819, 900, LIMIT, "MiB")
    assert (result.value, result.status, result.evidence) == (91.0, Status.RED, "819 of 900 MiB")


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_a_status(verdict: Verdict) -> None:
    """Only a stream that idles or progresses is green, and one that cannot be judged is unknown."""
    status = stream("bronze_binance", verdict, "because").status
    assert (status is Status.GREEN) == (verdict in (Verdict.IDLE, Verdict.PROGRESSING))
    assert (status is Status.UNKNOWN) == (verdict is Verdict.UNKNOWN)
    assert (status is Status.RED) == (verdict is Verdict.DEAD or verdict in HUNG | HELD | {Verdict.SPLIT_BRAIN})


def result(status: Status) -> CheckResult:
    return CheckResult(Check.DISK, "home", status, None, None, None, "")


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        ([Status.GREEN, Status.GREEN], Status.GREEN),
        ([Status.GREEN, Status.YELLOW], Status.YELLOW),
        ([Status.YELLOW, Status.UNKNOWN], Status.UNKNOWN),
        ([Status.UNKNOWN, Status.RED], Status.RED),
        ([], Status.UNKNOWN),
    ],
)
def test_unknown_is_never_green(statuses: list[Status], whole: Status) -> None:
    """The whole is as bad as its worst check; unknown is worse than yellow, and no checks at all are unknown."""
    assert worst([result(s) for s in statuses]) is whole


def test_counts_name_every_status() -> None:
    """A status that nobody has is counted as 0."""
    assert counts([result(Status.RED)]) == {"red": 1, "unknown": 0, "yellow": 0, "green": 0}


def test_advice_follows_the_status() -> None:
    """Green needs none, unknown says to find out why, anything else says what to do about the check."""
    green = measured(Check.DISK, "home", 10, LIMIT, "")
    red = measured(Check.DISK, "home", 95, LIMIT, "")
    blind = unknown(Check.DISK, "home", "the disk is away", LIMIT)
    assert green.advice == "" and "iceberg_maintenance" in red.advice and "could not be read" in blind.advice
    assert all(measured(check, "x", 95, LIMIT, "").advice for check in Check)
