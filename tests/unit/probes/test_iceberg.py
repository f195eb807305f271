"""Lag of a Silver stream from a table's metadata file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.probes.iceberg import Snapshot, TableHeads, head, main_branch

T0 = datetime(2026, 1, 1, tzinfo=UTC)
NOW = T0 + timedelta(minutes=10)


def raw(number: int, parent: int | None, operation: str = "append", rows: int = 10, files: int = 2) -> dict[str, Any]:
    milliseconds = int((T0 + timedelta(minutes=number)).timestamp() * 1000)
    summary = {"operation": operation, "added-records": str(rows), "added-data-files": str(files)}
    return {"snapshot-id": number, "timestamp-ms": milliseconds, "summary": summary} | ({} if parent is None else {"parent-snapshot-id": parent})


def metadata(*snapshots: dict[str, Any], current: int | None = None) -> bytes:
    newest = snapshots[-1]["snapshot-id"] if current is None else current
    return json.dumps({"format-version": 2, "current-snapshot-id": newest, "snapshots": snapshots}).encode()


CHAIN = main_branch(metadata(raw(1, None), raw(2, 1, rows=20), raw(3, 2, "replace", rows=30, files=1), raw(4, 3, rows=40, files=3)))


def at(snapshot: int, position: int) -> dict[str, Any]:
    return {"version": 1, "snapshot_id": snapshot, "position": position, "scan_all_files": False}


@pytest.mark.parametrize(
    ("committed", "rows", "minutes"),
    [
        (at(4, 3), 0, None),
        (at(3, 1), 40, 6),
        (at(2, 2), 40, 6),
        (at(1, 2), 60, 8),
        (at(4, 1), 40, 6),
        (at(1, 0), 70, 9),
        (at(-1, 0), 70, 9),
        (None, 70, 9),
    ],
)
def test_lag_is_the_rows_of_unread_appends(committed: dict[str, Any] | None, rows: int, minutes: float | None) -> None:
    """Compactions add nothing, a snapshot read in part counts whole, and a stream without a commit has all before it."""
    found = head(CHAIN, committed, NOW)
    assert found.position == {"snapshot_id": 4, "position": 3}
    assert (found.lag_rows, found.lag_seconds) == (rows, 60.0 * minutes if minutes else 0.0)


def test_a_compaction_at_the_head_is_no_lag() -> None:
    """A replace snapshot moves the head without rows."""
    branch = main_branch(metadata(raw(1, None), raw(2, 1, "replace")))
    assert head(branch, at(1, 2), NOW).lag_rows == 0


def test_an_expired_position_has_an_unknown_lag() -> None:
    """When the committed snapshot is gone the rows between cannot be counted, and no number is made up."""
    found = head(CHAIN, at(77, 1), NOW)
    assert (found.lag_rows, found.lag_seconds) == (None, None)


def test_an_empty_table_is_caught_up() -> None:
    """A table without a snapshot has nothing to read."""
    for empty in ('{"snapshots": []}', '{"current-snapshot-id": -1}', '{"current-snapshot-id": null, "snapshots": []}'):
        found = head(main_branch(empty.encode()), None, NOW)
        assert (found.position, found.lag_rows, found.lag_seconds) == ({"snapshot_id": -1, "position": 0}, 0, 0.0)


@pytest.mark.parametrize("broken", ["", "{", '{"snapshots": 7}', '{"current-snapshot-id": 1, "snapshots": [{"snapshot-id": 1}]}'])
def test_what_is_no_metadata_is_refused(broken: str) -> None:
    """A file that was cut off, or that means something else, makes the lag unknown."""
    with pytest.raises(ValueError, match="the table's metadata cannot be read: "):
        main_branch(broken.encode())


def test_only_the_main_branch_counts() -> None:
    """Snapshots of other branches, and the history before an expiry, are not on the way to the head."""
    branch = main_branch(metadata(raw(2, 1), raw(9, 2), raw(3, 2), current=3))
    assert [s.id for s in branch] == [3, 2]


def test_a_metadata_file_is_read_once(tmp_path: Path) -> None:
    """The same location is not opened again; a new one is."""
    first, second = tmp_path / "00001 a.metadata.json", tmp_path / "00002.metadata.json"
    first.write_bytes(metadata(raw(1, None)))
    second.write_bytes(metadata(raw(1, None), raw(2, 1)))
    heads = TableHeads()
    kept = heads.branch("t", f"file://{str(first).replace(' ', '%20')}")
    first.unlink()
    assert heads.branch("t", f"file://{str(first).replace(' ', '%20')}") is kept
    assert [s.id for s in heads.branch("t", f"file:{second}")] == [2, 1]
    with pytest.raises(ValueError, match="reads file: locations"):
        heads.branch("t", "s3://bucket/metadata.json")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.integers(0, 3)), max_size=12), st.data())
def test_lag_never_grows_as_the_stream_advances(shape: list[tuple[bool, int, int]], data: st.DataObject) -> None:
    """Further positions never have more lag, and the head itself has none."""
    branch = [Snapshot(n, T0, appends, rows, files) for n, (appends, rows, files) in reversed(list(enumerate(shape)))]
    positions = [at(s.id, p) for s in reversed(branch) for p in range(s.files + 1)]
    lags = [head(branch, position, NOW).lag_rows for position in positions]
    assert lags == sorted(lags, reverse=True)
    if lags:
        assert lags[-1] == 0
        assert head(branch, None, NOW).lag_rows >= lags[0]


def test_snapshots_that_are_known_are_taken_over() -> None:
    """The branch is the same as one that is read anew, after a new snapshot and after a rollback to another branch."""
    known = {snapshot.id: snapshot for snapshot in CHAIN}
    longer = metadata(raw(1, None), raw(2, 1, rows=20), raw(3, 2, "replace", rows=30, files=1), raw(4, 3, rows=40, files=3), raw(5, 4, rows=50))
    forked = metadata(raw(1, None), raw(2, 1, rows=20), raw(6, 2, rows=60))
    for found in (longer, forked):
        assert main_branch(found, known) == main_branch(found)
    assert all(any(snapshot is old for old in CHAIN) for snapshot in main_branch(longer, known)[1:])
