"""What lies in the quarantine: told with all that is wrong with it, tidied up after a kill, and deleted in its time and not before."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2.checkpoints.entries import Refused, entries, purge, recover, verify
from k2.checkpoints.manifest import LIST, MANIFEST, Kind, Why
from k2.checkpoints.quarantine import put, quarantine_of, restore

from .folders import content, make

AT = datetime(2026, 11, 22, 2, 30, 5, tzinfo=UTC)
TTL = timedelta(days=30)
WHY = Why(kind=Kind.RETIRED, who="dba", why="nobody reads it", at=AT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The checkpoints' folder, with one checkpoint."""
    make(tmp_path / "checkpoints" / "bronze-x")
    return tmp_path / "checkpoints"


def test_nothing_is_purged_before_its_time(root: Path) -> None:
    entry = put(root / "bronze-x", root, WHY)
    with pytest.raises(Refused, match="is kept until 2026-12-22 02:30:05 UTC: purge it then"):
        purge(entry, AT + TTL - timedelta(seconds=1), TTL)
    verify(entry)
    purge(entry, AT + TTL, TTL)
    assert entries(quarantine_of(root)) == []
    with pytest.raises(Refused, match="No such file or directory"):
        purge(entry, AT + TTL, TTL)


def test_of_what_age_nobody_knows_is_not_purged(root: Path) -> None:
    entry = put(root / "bronze-x", root, WHY)
    (entry.folder / MANIFEST).write_text("{}")
    (found,) = entries(quarantine_of(root))
    with pytest.raises(Refused, match="since when it lies there cannot be known: manifest.json, kind: Field required"):
        purge(found, AT + 2 * TTL, TTL)
    assert found.checkpoint.is_dir()


def test_what_is_being_purged_never_goes_back(root: Path) -> None:
    """Also when all of it is still there; the purge goes on, whatever its age."""
    entry = put(root / "bronze-x", root, WHY)
    entry.folder.rename(entry.folder.with_name(entry.folder.name + ".purging"))
    (found,) = entries(quarantine_of(root))
    assert found.purging and found.wrong == "it is being purged: if no process does that now, purge it again"
    with pytest.raises(Refused, match="is being purged: what is left of it never goes back"):
        restore(found, root / "bronze-x", root)
    with pytest.raises(Refused, match="No such file or directory"):
        restore(entry, root / "bronze-x", root)
    assert recover(quarantine_of(root)) == [] and found.checkpoint.is_dir()
    purge(found, AT, TTL)
    assert entries(quarantine_of(root)) == []


def test_a_purge_follows_no_link(root: Path) -> None:
    """What somebody linked from the quarantine is not deleted with it."""
    entry = put(root / "bronze-x", root, WHY)
    live = make(root / "live")
    before = content(live)
    (entry.checkpoint / "offsets" / "link").symlink_to(live)
    purge(entry, AT + TTL, TTL)
    assert content(live) == before and entries(quarantine_of(root)) == []

    moved = put(make(root / "bronze-x"), root, WHY)
    elsewhere = moved.checkpoint.rename(root.parent / "elsewhere")
    moved.checkpoint.symlink_to(elsewhere)
    before = content(elsewhere)
    purge(moved, AT + TTL, TTL)
    assert content(elsewhere) == before and entries(quarantine_of(root)) == []


def test_everything_that_lies_there_is_told(root: Path) -> None:
    """With what is wrong with it: nothing is hidden, nothing is an error."""
    place = quarantine_of(root)
    assert entries(place) == [] and recover(place) == []
    whole = put(root / "bronze-x", root, WHY)
    renamed = put(make(root / "bronze-y"), root, WHY).folder.rename(place / "renamed")
    (place / "lost+found").mkdir()
    (place / "note.txt").write_text("by hand")
    nameless = put(make(root / "bronze-z"), root, WHY)
    (nameless.folder / MANIFEST).unlink()
    said = {e.folder.name: e.wrong for e in entries(place)}
    assert said == {
        whole.folder.name: None,
        "renamed": f"its manifest is that of {json.loads((renamed / MANIFEST).read_text())['id']}: give the folder its name back",
        "lost+found": "it holds no checkpoint: interrupted work left it, and `recover` removes it, but for what was put into it by hand",
        "note.txt": "it is no folder, and nothing of the quarantine's: move it elsewhere",
        nameless.folder.name: "manifest.json: No such file or directory: look at its checkpoint, and move that by hand",
    }


def test_recovery_removes_rests_and_nothing_else(root: Path) -> None:
    place = quarantine_of(root)
    whole = put(root / "bronze-x", root, WHY)
    nameless = put(make(root / "bronze-z"), root, WHY)
    (nameless.folder / MANIFEST).unlink()
    rests = [place / "a-1", place / "b-2"]
    for rest in rests:
        (rest / "part" / "offsets").mkdir(parents=True)
        (rest / "part" / "offsets" / "0").touch()
        (rest / LIST).touch()
    (rests[1] / "by hand").touch()
    before = content(whole.folder), content(nameless.folder)
    assert recover(place) == [rests[0] / "part", rests[0], rests[1] / "part"]
    assert (content(whole.folder), content(nameless.folder)) == before and content(rests[1]) == {"by hand": (b"", (rests[1] / "by hand").stat().st_mtime_ns)}
    assert recover(place) == []


def test_two_processes_do_not_work_on_one_entry(root: Path) -> None:
    entry = put(root / "bronze-x", root, WHY)
    rest = quarantine_of(root) / "rest-1"
    rest.mkdir()
    held = [os.open(folder, os.O_RDONLY) for folder in (entry.folder, rest)]
    try:
        for descriptor in held:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        for act in (lambda: restore(entry, root / "bronze-x", root), lambda: purge(entry, AT + TTL, TTL)):
            with pytest.raises(Refused, match="another process works on it: wait until it is done"):
                act()
        assert recover(quarantine_of(root)) == [] and rest.is_dir()
    finally:
        for descriptor in held:
            os.close(descriptor)
    assert recover(quarantine_of(root)) == [rest]
    restore(entry, root / "bronze-x", root)


def test_a_recovery_in_another_process_loses_nothing(root: Path) -> None:
    """It runs without a pause while a checkpoint goes and comes: at worst that is refused."""
    before, place, went, parent = content(root / "bronze-x"), quarantine_of(root), 0, os.getpid()
    child = os.fork()
    if child == 0:
        while os.getppid() == parent:
            with suppress(OSError):
                recover(place)
        os._exit(0)
    try:
        for _ in range(30):
            with suppress(Refused):
                restore(put(root / "bronze-x", root, WHY), root / "bronze-x", root)
                went += 1
            deadline = time.monotonic() + 10
            while not (root / "bronze-x").exists() and time.monotonic() < deadline:
                for left in entries(place):
                    with suppress(Refused):
                        restore(left, root / "bronze-x", root)
            assert content(root / "bronze-x") == before
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert went > 0
