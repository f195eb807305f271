"""A checkpoint that is made again, as it is written: byte by byte as Spark does it, whole, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k2.checkpoints.examine import folders
from k2.checkpoints.reader import read_offsets, read_tail
from k2.checkpoints.rebuild_files import files_of, write
from k2.checkpoints.rebuild_plan import Begin, BronzePlan, Place, SilverPlan

NEW = "0f1e2d3c-0000-4000-8000-000000000000"
BRONZE = BronzePlan("t", NEW, (Begin("0", 10, (0, 12), (0, 10)), Begin("1", 7, (0, 7), (0, 7))), files=4, opened=0, since=None)
SILVER = SilverPlan("s", 2, datetime(2026, 1, 1, tzinfo=UTC), Place(101, 1), Place(101, 3), (60, 40, 20), owed=0)
FIRST = replace(SILVER, batch=0)


def test_a_checkpoint_of_bronze_is_its_identity_and_its_first_offsets(tmp_path: Path) -> None:
    """Byte by byte as Spark writes them; to the reader it is a query that has planned nothing yet."""
    write(BRONZE, tmp_path / "bronze")
    found = {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    assert found == {"bronze/metadata": f'{{"id":"{NEW}"}}'.encode(), "bronze/sources/0/0": b'\0v1\n{"t":{"0":10,"1":7}}'}
    tail = read_tail(tmp_path / "bronze")
    assert (tail.query_id, tail.last_offset_batch, tail.committed) == (NEW, None, None)


def test_a_checkpoint_of_silver_has_its_newest_batch_in_flight(tmp_path: Path) -> None:
    """The one before is committed, and a reader that looked for its beginning would find where that ended."""
    write(SILVER, tmp_path / "silver")
    tail = read_tail(tmp_path / "silver")
    offset = {"version": 1, "snapshot_id": 101, "position": 1, "scan_all_files": False}
    assert (tail.query_id, tail.last_commit_batch, tail.last_offset_batch, tail.committed) == ("s", 1, 2, offset)
    assert read_offsets(tmp_path / "silver", 2) == [{**offset, "position": 3}]
    assert json.loads((tmp_path / "silver" / "sources" / "0" / "offsets" / "0").read_bytes()) == offset
    assert sorted(files_of(FIRST)) == ["metadata", "offsets/0", "sources/0/offsets/0"]


def test_what_is_being_written_is_no_checkpoint_yet(tmp_path: Path) -> None:
    """Nobody examines it or takes anything out of it; any other hidden folder is looked at."""
    for name in ("silver", ".silver.rebuilt", ".other"):
        (tmp_path / name).mkdir()
    assert folders(tmp_path, {"bronze": "bronze_x"}) == ["bronze", ".other", "silver"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """Not even an empty folder, or a link to nowhere. What an interrupted writing left is no obstacle and does not stay."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "link"):
        with pytest.raises(FileExistsError, match=name):
            write(FIRST, tmp_path / name)
    (tmp_path / ".silver.rebuilt" / "commits").mkdir(parents=True)
    (tmp_path / ".silver.rebuilt" / "commits" / "8").write_text("of another time")
    write(FIRST, tmp_path / "silver")
    assert {str(f.relative_to(tmp_path / "silver")) for f in (tmp_path / "silver").rglob("*") if f.is_file()} == set(files_of(FIRST))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["empty", "link", "silver"]


def test_a_writing_that_fails_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the last rename there is nothing at the target, and afterwards all of it."""
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        write(SILVER, tmp_path / "silver")
    assert not (tmp_path / "silver").exists()
    monkeypatch.undo()
    write(SILVER, tmp_path / "silver")
    assert read_tail(tmp_path / "silver").query_id == "s"
