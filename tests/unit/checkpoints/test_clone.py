"""A copy of a checkpoint's end."""

from __future__ import annotations

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


def test_a_copy_never_goes_onto_another(checkpoint: Path, tmp_path: Path) -> None:
    """Two checkpoints in one folder are none."""
    clone(checkpoint, tmp_path / "copy", 2)
    with pytest.raises(FileExistsError):
        clone(checkpoint, tmp_path / "copy", 3)
