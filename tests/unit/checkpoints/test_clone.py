"""A copy of a checkpoint's end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k2.checkpoints.clone import clone
from k2.checkpoints.reader import CheckpointUnreadable, read_tail


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Batches 0 to 3 are committed, 4 is planned."""
    folder = tmp_path / "live"
    for batch in range(5):
        for log, text in (("offsets", f'v1\n{{}}\n{{"topic":{{"0":{batch}}}}}'), ("commits", "v1\n{}")):
            if log == "offsets" or batch < 4:
                (folder / log).mkdir(parents=True, exist_ok=True)
                (folder / log / str(batch)).write_text(text)
    (folder / "metadata").write_text('{"id":"q"}')
    (folder / "sources" / "0" / "offsets").mkdir(parents=True)
    (folder / "sources" / "0" / "offsets" / "0").write_text("first")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("batch", [0, 2, 3])
def test_the_copy_ends_with_the_batch(checkpoint: Path, tmp_path: Path, batch: int) -> None:
    """Identity, sources and two batches, none of them planned only; the original is as it was, byte by byte."""
    before = content(checkpoint)
    clone(checkpoint, tmp_path / "copy", batch)
    tail = read_tail(tmp_path / "copy")
    assert (tail.query_id, tail.last_offset_batch, tail.last_commit_batch, tail.committed) == ("q", batch, batch, {"topic": {"0": batch}})
    assert (tmp_path / "copy" / "sources" / "0" / "offsets" / "0").read_text() == "first"
    assert content(checkpoint) == before
    assert set(content(tmp_path / "copy").items()) <= set(before.items())


@pytest.mark.parametrize("missing", ["metadata", "offsets/2", "commits/3"])
def test_what_is_missing_is_named(checkpoint: Path, tmp_path: Path, missing: str) -> None:
    """A checkpoint without what Spark needs is not tried on."""
    (checkpoint / missing).unlink()
    with pytest.raises(CheckpointUnreadable, match=f"{missing} does not exist, so nothing can be tried after batch 3"):
        clone(checkpoint, tmp_path / "copy", 3)


def test_files_keep_their_times_and_half_written_ones_are_left_out(checkpoint: Path, tmp_path: Path) -> None:
    """When a batch was committed is its file's time. What Spark has not renamed into place is no part of a checkpoint."""
    os.utime(checkpoint / "commits" / "3", ns=(7, 7))
    (checkpoint / "sources" / "0" / ".1.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.tmp").write_text("half")
    clone(checkpoint, tmp_path / "copy", 3)
    assert (tmp_path / "copy" / "commits" / "3").stat().st_mtime_ns == 7
    assert sorted(p.name for p in (tmp_path / "copy" / "sources").rglob("*")) == ["0", "0", "offsets"]


def test_a_copy_never_goes_onto_another(checkpoint: Path, tmp_path: Path) -> None:
    """Two checkpoints in one folder are none."""
    clone(checkpoint, tmp_path / "copy", 2)
    with pytest.raises(FileExistsError):
        clone(checkpoint, tmp_path / "copy", 3)
