"""A checkpoint out of the way."""

from __future__ import annotations

from pathlib import Path

from k2.checkpoints.aside import move_aside


def test_a_checkpoint_is_moved_aside_whole(tmp_path: Path) -> None:
    """Out of the tree, by one rename; one that is not there is no error."""
    path = tmp_path / "checkpoints" / "bronze-x"
    (path / "offsets").mkdir(parents=True)
    (path / "metadata").write_text("m")
    moved = move_aside(path, 7)
    assert moved == tmp_path / "checkpoints.aside" / "bronze-x-before-7"
    assert (moved / "metadata").read_text() == "m" and (moved / "offsets").is_dir() and not path.exists()
    assert move_aside(path, 8) is None
