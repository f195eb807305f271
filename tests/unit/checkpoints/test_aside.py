"""A checkpoint out of the way of a start: in the quarantine, with what it was for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2.checkpoints.aside import move_aside, take_new_identity
from k2.checkpoints.entries import Refused, entries
from k2.checkpoints.manifest import Kind
from k2.checkpoints.quarantine import quarantine_of, restore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints" / "bronze-x"
    for log, text in (("offsets", 'v1\n{}\n{"topic":{"0":4}}'), ("commits", "v1\n{}")):
        (folder / log).mkdir(parents=True)
        (folder / log / "4").write_text(text)
    (folder / "metadata").write_text('{"id":"old"}')
    (folder / ".metadata.crc").write_text("crc")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_checkpoint_is_moved_aside_whole(path: Path) -> None:
    """It can be restored from the quarantine, which says what it made way for; one that is not there is no error."""
    before = content(path)
    moved = move_aside(path, 7)
    (entry,) = entries(quarantine_of(path.parent))
    assert moved == entry.checkpoint and content(moved) == before and not path.exists()
    m = entry.manifest
    assert m is not None and (m.kind, m.folder, m.query_id, m.last_committed, m.about) == (Kind.ADOPTED, "bronze-x", "old", 4, {"fence": 7})
    assert (m.who, m.why) == ("watchdog", "its stream was adopted and goes on from another checkpoint")
    assert move_aside(path, 8) is None
    restore(entry, path, path.parent)
    assert content(path) == before


def test_one_that_nobody_can_read_is_moved_aside_too(path: Path) -> None:
    """A person has decided that the stream goes on without it."""
    (path / "offsets" / "4").write_text("v9\n")
    moved = move_aside(path, 7)
    (entry,) = entries(quarantine_of(path.parent))
    assert moved == entry.checkpoint and entry.manifest is not None and "log version 'v9'" in str(entry.manifest.unreadable)


def test_a_new_identity_leaves_a_copy_of_what_was(path: Path) -> None:
    """Only `metadata` is another one, and its old checksum is gone. Done again, it puts another copy beside the first."""
    before = content(path)
    copy = take_new_identity(path, 7)
    first = json.loads((path / "metadata").read_text())["id"]
    assert first != "old" and content(path) == {name: text for name, text in before.items() if "metadata" not in name} | {
        "metadata": (path / "metadata").read_text()
    }
    again = take_new_identity(path, 8)
    assert content(copy) == before and json.loads((again / "metadata").read_text())["id"] == first
    assert json.loads((path / "metadata").read_text())["id"] not in ("old", first)
    found = {e.checkpoint: e.manifest for e in entries(quarantine_of(path.parent))}
    assert {where: m and (m.query_id, m.about) for where, m in found.items()} == {copy: ("old", {"fence": 7}), again: (first, {"fence": 8})}


def test_what_cannot_be_kept_is_not_given_another_identity(path: Path) -> None:
    (path / "offsets" / "link").symlink_to("4")
    before = content(path)
    with pytest.raises(Refused, match="offsets/link is a symbolic link"):
        take_new_identity(path, 7)
    assert content(path) == before
