"""Killed (SIGKILL) before any change on disk, each in turn: the checkpoint is whole, in one place, and the work can be done again."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2.checkpoints.aside import take_new_identity
from k2.checkpoints.backup import back_up, backups_of, restore_backup
from k2.checkpoints.entries import CHECKPOINT, Entry, Refused, entries, purge, recover, verify
from k2.checkpoints.manifest import LIST, MANIFEST, Kind, Why
from k2.checkpoints.quarantine import put, put_copy, quarantine_of, restore
from k2.checkpoints.reader import read_tail

from .crashes import every_crash, killed_before
from .folders import Content, content

AT = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
LATER, TTL = AT + timedelta(days=31), timedelta(days=30)
WHY = Why(kind=Kind.RETIRED, who="dba", why="test", at=AT)
QUERY = "0c1b7cf6-6e0f-4f6c-9a3e-3d5f2c1b0a99"


def make(folder: Path, batch: int = 5) -> None:
    """A checkpoint that has committed `batch` and planned the next one."""
    texts = {"metadata": json.dumps({"id": QUERY}), ".metadata.crc": "crc", "sources/0/0": "v1\n{}"}
    texts |= {f"offsets/{n}": f'v1\n{{}}\n{{"topic":{{"0":{n}}}}}' for n in (batch - 1, batch, batch + 1)}
    texts |= {f"commits/{n}": "v1\n{}" for n in (batch - 1, batch)}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


class World:
    """A folder of checkpoints with its quarantine and backups, made anew for every crash."""

    def __init__(self, base: Path) -> None:
        self.base, self.root = base, base / "checkpoints"
        self.live, self.place = self.root / "x", quarantine_of(self.root)
        self.backups = backups_of(self.root, "x")
        self.content: Content = {}

    def begin(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)
        make(self.live)
        self.content = content(self.live)

    def begin_held(self) -> None:
        self.begin()
        put(self.live, self.root, WHY)

    def entry(self) -> Entry:
        (found,) = entries(self.place)
        return found

    def held(self) -> list[Entry]:
        """The entries that hold something, all of them whole."""
        found = [e for e in entries(self.place) if e.checkpoint.exists()]
        for entry in found:
            assert entry.wrong is None and verify(entry) == entry.manifest and content(entry.checkpoint) == self.content
        return found

    def assert_whole_in_one_place(self) -> None:
        """At its place, or in the quarantine with a manifest that says so."""
        held = self.held()
        assert len(held) + self.live.exists() == 1
        if not held:
            assert content(self.live) == self.content

    def assert_recovered(self) -> None:
        """A recovery that is itself killed before each change leaves the same, and then nothing but whole entries is left."""
        for change in itertools.count(1):
            if not killed_before(change, lambda: recover(self.place)):
                break
        assert recover(self.place) == []
        assert [e for e in entries(self.place) if e.wrong] == []


@pytest.fixture
def world() -> Iterator[World]:
    """In memory where that can be: what the disk makes of it is another test's."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield World(Path(folder) / "data")


def test_a_put_that_is_killed(world: World) -> None:
    places = set()
    for _ in every_crash(world.begin, lambda: put(world.live, world.root, WHY)):
        world.assert_whole_in_one_place()
        world.assert_recovered()
        world.assert_whole_in_one_place()
        places.add(world.live.exists())
        if world.live.exists():
            put(world.live, world.root, WHY)
        restore(world.entry(), world.live, world.root)
        assert content(world.live) == world.content
    assert places == {True, False}


def test_a_copy_that_is_killed(world: World) -> None:
    """The checkpoint stays as it is, and there is a whole copy or none."""
    copies = set()
    for _ in every_crash(world.begin, lambda: put_copy(world.live, world.root, WHY)):
        world.assert_recovered()
        copies.add(len(world.held()))
        assert content(world.live) == world.content
        put_copy(world.live, world.root, WHY)
    assert copies == {0, 1}


def test_a_restore_that_is_killed(world: World) -> None:
    places = set()
    for _ in every_crash(world.begin_held, lambda: restore(world.entry(), world.live, world.root)):
        world.assert_whole_in_one_place()
        world.assert_recovered()
        world.assert_whole_in_one_place()
        places.add(world.live.exists())
        if not world.live.exists():
            restore(world.entry(), world.live, world.root)
        assert content(world.live) == world.content and entries(world.place) == []
    assert places == {True, False}


def test_a_purge_that_is_killed(world: World) -> None:
    """Whole, or never to be restored and purged to the end when it is asked again."""
    begun = set()
    for _ in every_crash(world.begin_held, lambda: purge(world.entry(), LATER, TTL)):
        left = entries(world.place)
        begun.add(left[0].purging if left else None)
        assert recover(world.place) == [], "a purge is not undone, and not gone on with unasked"
        if left and not left[0].purging:
            assert len(world.held()) == 1
        for entry in left:
            if entry.purging:
                with pytest.raises(Refused, match="never goes back"):
                    restore(entry, world.live, world.root)
            purge(entry, LATER, TTL)
        assert entries(world.place) == []
    assert {True, False} <= begun


def test_a_new_identity_that_is_killed(world: World) -> None:
    """The checkpoint is one query's or the other's, never nobody's, and once it is another's a copy of it as it was lies in the quarantine."""
    identities = set()
    for _ in every_crash(world.begin, lambda: take_new_identity(world.live, 7)):
        tail = read_tail(world.live)
        assert tail.query_id is not None and (tail.last_offset_batch, tail.last_commit_batch) == (6, 5)
        if tail.query_id != QUERY:
            assert len(world.held()) == 1
        identities.add(tail.query_id == QUERY)
        recover(world.place)
        assert [e for e in entries(world.place) if e.wrong] == []
    assert identities == {True, False}


def one_more(world: World) -> Entry:
    return back_up(world.live, world.root, who="dba", why="monthly", at=LATER, keep=1)


def begin_backed_up(world: World) -> None:
    world.begin()
    back_up(world.live, world.root, who="dba", why="monthly", at=AT, keep=1)


def test_a_backup_that_is_killed(world: World) -> None:
    """There is always one that can go back, and the next one leaves just that many."""
    counts = set()
    for _ in every_crash(lambda: begin_backed_up(world), lambda: one_more(world)):
        whole = [e for e in entries(world.backups) if e.wrong is None]
        counts.add(len(whole))
        for entry in whole:
            assert verify(entry).last_committed == 5
        assert content(world.live) == world.content
        one_more(world)
        (left,) = entries(world.backups)
        assert left.wrong is None
    assert counts == {1, 2}


def test_going_back_to_a_backup_that_is_killed(world: World) -> None:
    """All of it is at its place or nothing, and the backup stays."""
    there = set()

    def begin() -> None:
        begin_backed_up(world)
        shutil.rmtree(world.live)

    for _ in every_crash(begin, lambda: restore_backup(entries(world.backups)[0], world.live, world.root, 5)):
        there.add(world.live.exists())
        recover(world.backups)
        (backup,) = entries(world.backups)
        verify(backup)
        assert sorted(p.name for p in backup.folder.iterdir()) == [CHECKPOINT, LIST, MANIFEST]
        if not world.live.exists():
            restore_backup(backup, world.live, world.root, 5)
        assert content(world.live) == content(backup.checkpoint)
    assert there == {True, False}


def recorded(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> list[tuple[str, str]]:
    """What was made durable and what was renamed, in order."""
    did: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def on_fsync(descriptor: int) -> None:
        did.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def on_rename(path: Path, target: Path) -> None:
        did.append(("rename", Path(target).name))
        rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", on_fsync)
        patch.setattr(os, "rename", on_rename)
        work()
    return did


def test_a_power_cut_finds_the_manifest_before_the_checkpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kill shows what only the disk can lose: what a rename relies on is durable before it, and the rename itself after it."""
    world.begin()
    did = recorded(monkeypatch, lambda: put(world.live, world.root, WHY))
    entry, at = world.entry(), did.index(("rename", CHECKPOINT))
    assert [step for step in did if step[0] == "rename"] == [("rename", CHECKPOINT)]
    assert did[:at] == [("fsync", name) for name in ("data", LIST, MANIFEST, entry.folder.name, "checkpoints.quarantine")]
    assert {("fsync", entry.folder.name), ("fsync", "checkpoints")} <= set(did[at:])

    did = recorded(monkeypatch, lambda: restore(entry, world.live, world.root))
    assert did == [("rename", "x"), ("fsync", "checkpoints"), ("fsync", entry.folder.name), ("fsync", "checkpoints.quarantine")]

    did = recorded(monkeypatch, lambda: put_copy(world.live, world.root, WHY))
    at = did.index(("rename", CHECKPOINT))
    assert {("fsync", Path(name).name) for name in world.content} <= set(did[:at]), "every file and folder of the copy"
    entry = world.entry()
    did = recorded(monkeypatch, lambda: purge(entry, LATER, TTL))
    assert did[:2] == [("rename", f"{entry.folder.name}.purging"), ("fsync", "checkpoints.quarantine")]
