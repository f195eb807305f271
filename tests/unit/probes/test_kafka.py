"""Lag of a Bronze stream from end offsets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.probes.kafka import head, uncommitted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = "trades"


class Records:
    """Stands for the broker: the age of the oldest record that is asked for."""

    def __init__(self, oldest: datetime | None) -> None:
        self.answer = oldest
        self.asked: list[Any] = []

    def oldest(self, positions: Any) -> datetime | None:
        self.asked.append(positions)
        return self.answer


def test_lag_is_summed_over_partitions() -> None:
    """Records beyond the committed offset count, and the oldest of them gives the seconds."""
    records = Records(NOW - timedelta(seconds=7))
    found = head(records, TOPIC, {"0": 10, "1": 5, "2": 3}, {TOPIC: {"0": 4, "1": 5}}, NOW)
    assert (found.lag_rows, found.lag_seconds) == (9, 7.0)
    assert found.position == {TOPIC: {"0": 10, "1": 5, "2": 3}}
    assert records.asked == [{TOPIC: {"0": 4, "2": 0}}], "only partitions that are behind are read"


def test_caught_up_reads_no_record() -> None:
    """Without lag no record is fetched."""
    records = Records(None)
    found = head(records, TOPIC, {"0": 10}, {TOPIC: {"0": 10}}, NOW)
    assert (found.lag_rows, found.lag_seconds, records.asked) == (0, 0.0, [])


@pytest.mark.parametrize("committed", [None, {"another topic": {"0": 1}}])
def test_before_the_first_commit_lag_is_unknown(committed: Any) -> None:
    """Nobody knows where a stream begins that has committed nothing of this topic."""
    found = head(Records(None), TOPIC, {"0": 10}, committed, NOW)
    assert (found.lag_rows, found.lag_seconds) == (None, None)


def test_rows_are_known_when_their_age_is_not() -> None:
    """A record that cannot be read in time makes the seconds unknown, not the rows; a clock ahead makes no negative age."""
    assert head(Records(None), TOPIC, {"0": 10}, {TOPIC: {"0": 9}}, NOW).lag_seconds is None
    ahead = head(Records(NOW + timedelta(seconds=1)), TOPIC, {"0": 10}, {TOPIC: {"0": 9}}, NOW)
    assert (ahead.lag_rows, ahead.lag_seconds) == (1, 0.0)


offsets = st.dictionaries(st.integers(0, 5).map(str), st.integers(0, 100))


@given(offsets, offsets)
def test_no_partition_is_behind_its_own_end(ends: dict[str, int], committed: dict[str, int]) -> None:
    """Lag is never negative, and only of partitions that exist."""
    behind = uncommitted(ends, committed)
    assert all(number in ends and offset < ends[number] for number, offset in behind.items())
    assert uncommitted(ends, ends) == {}
