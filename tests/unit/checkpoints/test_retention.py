"""What a stream would lose by going on where it stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.checkpoints.retention import kafka_loss, snapshot_loss
from k2.registry.history import Chain, Commit

T0 = datetime(2026, 1, 1, tzinfo=UTC)
OFFSETS = st.dictionaries(st.sampled_from("012"), st.integers(0, 20), min_size=1)


def test_a_place_that_kafka_holds_is_no_loss() -> None:
    """The first record of the log, the middle, and the end of it."""
    assert kafka_loss("t", {"0": 5, "1": 7, "2": 9}, {"0": 8}, {"0": 5, "1": 0, "2": 1}, {"0": 8, "1": 7, "2": 20}) is None


def test_what_retention_took_is_told_exactly() -> None:
    """Per partition the first lost offset and the one after the last, and how many records."""
    found = kafka_loss("t", {"0": 5, "10": 7, "2": 9}, {}, {"0": 8, "10": 7, "2": 10}, {"0": 8, "10": 7, "2": 10})
    assert found is not None and found.lost == {"0": (5, 8), "2": (9, 10)}
    assert found.sentence == "Kafka no longer holds 4 records of t that were not read: partition 0 [5, 8); partition 2 [9, 10)"


@pytest.mark.parametrize(
    ("next_offsets", "planned", "ends", "words"),
    [
        ({"0": 9}, {}, {"0": 5}, "partition 0 ends at 5, and 9 was reached already"),
        ({"0": 4}, {"0": 9}, {"0": 5}, "partition 0 ends at 5, and 9 was reached already"),
        ({"0": 4, "1": 2}, {}, {"0": 5}, "partition 1 is gone, and 2 is the next offset"),
    ],
)
def test_a_topic_that_was_made_anew(next_offsets: dict[str, int], planned: dict[str, int], ends: dict[str, int], words: str) -> None:
    """A position beyond the end, also of the batch in flight, leaves nothing that could be read on."""
    found = kafka_loss("t", next_offsets, planned, dict.fromkeys(ends, 0), ends)
    assert found is not None and not found.lost and words in found.sentence


@given(OFFSETS, OFFSETS, OFFSETS)
def test_no_loss_means_that_every_partition_can_be_read_on(next_offsets: dict[str, int], starts: dict[str, int], lengths: dict[str, int]) -> None:
    """And a range that is told is below the log's start, never empty, and nothing of it is still there."""
    ends = {p: starts[p] + lengths.get(p, 0) for p in starts}
    found = kafka_loss("t", next_offsets, {}, starts, ends)
    fits = {p: p in starts and starts[p] <= offset <= ends[p] for p, offset in next_offsets.items()}
    assert (found is None) == all(fits.values())
    for partition, (first, end) in found.lost.items() if found else ():
        assert next_offsets[partition] == first < end == starts[partition]


def chain(*snapshots: int, whole: bool = True) -> Chain:
    return Chain([Commit(s, T0 + timedelta(minutes=s), "append") for s in snapshots], whole)


def test_a_committed_snapshot_must_be_on_main() -> None:
    """Also when it is the oldest; the beginning counts as long as nothing has expired."""
    assert snapshot_loss("b", {"snapshot_id": 3, "position": 1}, chain(3, 4, whole=False), None) is None
    assert snapshot_loss("b", {"snapshot_id": -1, "position": -1}, chain(1, 2), None) is None
    assert snapshot_loss("b", {"snapshot_id": -1, "position": -1}, chain(), None) is None


def test_an_expired_snapshot_is_named_with_the_oldest_that_is_left() -> None:
    """Silver would die, or pass by what was expired."""
    found = snapshot_loss("b", {"snapshot_id": 3, "position": 1}, chain(7, 8, whole=False), T0)
    assert found is not None and not found.lost
    assert found.sentence == (
        "snapshot 3 of b, where it goes on, committed at 2026-01-01 00:00:00 UTC, is no longer on main: "
        "the oldest retained one is 7, of 2026-01-01 00:07:00 UTC"
    )
    assert snapshot_loss("b", {"snapshot_id": -1, "position": -1}, chain(7, whole=False), None) is not None
    assert "it retains none" in snapshot_loss("b", {"snapshot_id": 3, "position": 1}, chain(), None).sentence  # type: ignore[union-attr]
