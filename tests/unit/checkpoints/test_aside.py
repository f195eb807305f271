"""A checkpoint out of the way."""

from __future__ import annotations

import json
from pathlib import Path

from k2.checkpoints.aside import move_aside, take_new_identity


def test_a_checkpoint_is_moved_aside_whole(tmp_path: Path) -> None:
    """Out of the tree, by one rename; one that is not there is no error."""
    path = tmp_path / "checkpoints" / "bronze-x"
    (path / "offsets").mkdir(parents=True)
    (path / "metadata").write_text("m")
    moved = move_aside(path, 7)
    assert moved == tmp_path / "checkpoints.aside" / "bronze-x-before-7"
    assert (moved / "metadata").read_text() == "m" and (moved / "offsets").is_dir() and not path.exists()
    assert move_aside(path, 8) is None


def test_a_new_identity_leaves_a_copy_of_what_was(tmp_path: Path) -> None:
    """Only `metadata` is another one, and its old checksum is gone. Done again, it puts another copy beside the first."""
    path = tmp_path / "checkpoints" / "bronze-x"
    (path / "offsets").mkdir(parents=True)
    (path / "offsets" / "4").write_text("v1")
    (path / "metadata").write_text('{"id":"old"}')
    (path / ".metadata.crc").write_text("crc")
    (tmp_path / "checkpoints.aside" / ".bronze-x-before-7.part").mkdir(parents=True)
    copy = take_new_identity(path, 7)
    first = json.loads((path / "metadata").read_text())["id"]
    assert first != "old" and sorted(p.name for p in path.rglob("*")) == ["4", "metadata", "offsets"]
    again = take_new_identity(path, 7)
    assert (copy.name, again.name) == ("bronze-x-before-7", "bronze-x-before-7-1")
    assert json.loads((again / "metadata").read_text())["id"] == first != json.loads((path / "metadata").read_text())["id"]
    assert (copy / "metadata").read_text() == '{"id":"old"}' and (copy / ".metadata.crc").exists() and (copy / "offsets" / "4").read_text() == "v1"
