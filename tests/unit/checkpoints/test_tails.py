"""Tails that are followed tell what a whole reading tells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.checkpoints import tails as module
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.checkpoints.tails import LIST_EVERY_SECONDS, Tails


def write(checkpoint: Path, log: str, batch: int, offset: int | None = None) -> None:
    """As Spark does: beside its place, then renamed into it."""
    (checkpoint / log).mkdir(parents=True, exist_ok=True)
    partial = checkpoint / log / f".{batch}.tmp"
    partial.write_text("v1\n{}" if log == "commits" else f"v1\n{{}}\n{json.dumps({'t': {'0': batch if offset is None else offset}})}")
    partial.rename(checkpoint / log / str(batch))


def identity(checkpoint: Path, name: str) -> None:
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "metadata.tmp").write_text(json.dumps({"id": name}))
    (checkpoint / "metadata.tmp").rename(checkpoint / "metadata")


def batch(checkpoint: Path, number: int, offset: int | None = None) -> None:
    write(checkpoint, "offsets", number, offset)
    write(checkpoint, "commits", number)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    identity(tmp_path / "c", "q")
    for number in range(3):
        batch(tmp_path / "c", number)
    return tmp_path / "c"


def test_what_did_not_change_is_neither_listed_nor_read(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same value, confirmed by its files being as they were; after a minute it is read all the same."""
    seconds = [0.0]
    tails = Tails(lambda: seconds[0])
    first = tails.read(checkpoint)
    monkeypatch.setattr(module, "read_tail", lambda path: pytest.fail("it was read"))
    monkeypatch.setattr(module, "read_tail_of", lambda *_: pytest.fail("it was read"))
    assert tails.read(checkpoint) is first
    monkeypatch.undo()
    seconds[0] = LIST_EVERY_SECONDS
    assert tails.read(checkpoint) == first and tails.read(checkpoint) is not first


def test_new_batches_are_found_without_a_listing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several at once, planned and committed."""
    tails = Tails()
    tails.read(checkpoint)
    for number in range(3, 6):
        batch(checkpoint, number)
    write(checkpoint, "offsets", 6)
    expected = read_tail(checkpoint)
    monkeypatch.setattr(module, "read_tail", lambda path: pytest.fail("it was listed"))
    assert tails.read(checkpoint) == expected
    assert (expected.last_commit_batch, expected.last_offset_batch) == (5, 6)


def test_another_identity_is_seen(checkpoint: Path) -> None:
    """Metadata that was replaced or removed is not taken over from before."""
    tails = Tails()
    tails.read(checkpoint)
    identity(checkpoint, "other")
    assert tails.read(checkpoint).query_id == "other"
    (checkpoint / "metadata").unlink()
    assert tails.read(checkpoint).query_id is None


def test_a_checkpoint_that_was_put_back_is_seen(checkpoint: Path) -> None:
    """Batches that are gone, and one that was written anew with other offsets."""
    tails = Tails()
    tails.read(checkpoint)
    (checkpoint / "commits" / "2").unlink()
    assert tails.read(checkpoint).last_commit_batch == 1
    batch(checkpoint, 2, offset=77)
    tails.read(checkpoint)
    write(checkpoint, "offsets", 2, offset=99)
    assert tails.read(checkpoint).committed == {"t": {"0": 99}}
    shutil.rmtree(checkpoint)
    assert tails.read(checkpoint).last_commit_batch is None


def test_damage_is_told_and_forgotten_when_it_is_repaired(checkpoint: Path) -> None:
    """A damaged new batch, a folder in a file's place, and one that may not be entered: an error each time, never the value of before."""
    tails = Tails()
    tails.read(checkpoint)
    write(checkpoint, "offsets", 3)
    (checkpoint / "commits" / "3").write_text("garbage")
    for _ in range(2):
        with pytest.raises(CheckpointUnreadable, match="log version"):
            tails.read(checkpoint)
    write(checkpoint, "commits", 3)
    assert tails.read(checkpoint).last_commit_batch == 3
    (checkpoint / "commits" / "4").mkdir()
    with pytest.raises(CheckpointUnreadable):
        tails.read(checkpoint)
    (checkpoint / "commits" / "4").rmdir()
    assert tails.read(checkpoint).last_commit_batch == 3
    shutil.rmtree(checkpoint / "commits")
    (checkpoint / "commits").write_text("a file in the place of a folder")
    with pytest.raises(CheckpointUnreadable):
        tails.read(checkpoint)


def test_a_folder_that_cannot_be_read_is_told(checkpoint: Path) -> None:
    """By nobody, root included: an error, not the value of before."""
    tails = Tails()
    tails.read(checkpoint)
    shutil.rmtree(checkpoint / "commits")
    (checkpoint / "commits").symlink_to("commits")
    with pytest.raises(CheckpointUnreadable, match="symbolic links"):
        tails.read(checkpoint)


STEPS = st.lists(st.sampled_from(["plan", "commit", "purge", "rewind", "identity", "remove"]), min_size=1, max_size=12)


@settings(max_examples=60)
@given(steps=STEPS, looks=st.lists(st.booleans(), min_size=12, max_size=12))
def test_following_tells_what_reading_tells(tmp_path_factory: pytest.TempPathFactory, steps: list[str], looks: list[bool]) -> None:
    """Whatever happens to a checkpoint, and however often it is looked at in between."""
    checkpoint = tmp_path_factory.mktemp("c") / "c"
    identity(checkpoint, "q")
    planned = committed = -1
    tails = Tails()
    for number, step in enumerate(steps):
        if step == "plan":
            planned += 1
            write(checkpoint, "offsets", planned, offset=number)
        elif step == "commit" and planned > committed:
            committed += 1  # of each batch, as Spark does
            write(checkpoint, "commits", committed)
        elif step == "purge" and committed > 1:
            for log in ("offsets", "commits"):
                (checkpoint / log / str(committed - 2)).unlink(missing_ok=True)
        elif step == "rewind" and committed > 0:
            for log in ("offsets", "commits"):
                for kept in range(committed, planned + 1):
                    (checkpoint / log / str(kept)).unlink(missing_ok=True)
            planned = committed = committed - 1
            batch(checkpoint, committed, offset=1000 + number)
        elif step == "identity":
            identity(checkpoint, f"q{number}")
        elif step == "remove":
            shutil.rmtree(checkpoint)
            identity(checkpoint, f"r{number}")
            planned = committed = -1
        if looks[number]:
            assert tails.read(checkpoint) == read_tail(checkpoint)
    assert tails.read(checkpoint) == read_tail(checkpoint)
