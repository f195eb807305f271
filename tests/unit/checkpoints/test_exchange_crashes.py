"""Killed (SIGKILL) before any change on disk while one checkpoint takes the place of another: both are whole, and it can be done again to the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k2.checkpoints import quarantine
from k2.checkpoints.backup import back_up, backups_of, restore_backup
from k2.checkpoints.entries import Entry, Refused, entries, recover, verify
from k2.checkpoints.manifest import LIST, Kind, Why, differences
from k2.checkpoints.quarantine import put, quarantine_of, restore

from .crashes import every_crash
from .folders import Content, content, make

AT = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
ADOPTED = Why(kind=Kind.ADOPTED, who="dba", why="test", at=AT)
INSTEAD = Why(kind=Kind.REPLACED, who="dba", why="the old one takes its place", at=AT, about={"of": "the caller"})


class World:
    """The old checkpoint lies in the quarantine, and in a backup; the new one is at its place. Made anew for every crash."""

    def __init__(self, base: Path) -> None:
        self.base, self.root = base, base / "checkpoints"
        self.live, self.place, self.backups = self.root / "x", quarantine_of(self.root), backups_of(self.root, "x")
        self.old: Content = {}
        self.new: Content = {}
        self.name = ""

    def begin(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)
        make(self.live, offsets=(3, 4, 5), commits=(3, 4))
        self.old = content(self.live)
        self.name = put(self.live, self.root, ADOPTED).folder.name
        make(self.live)
        self.new = content(self.live)

    def begin_with_a_backup(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)
        make(self.live, offsets=(3, 4, 5), commits=(3, 4))
        self.name = back_up(self.live, self.root, who="dba", why="monthly", at=AT, keep=1).folder.name
        self.old = content(self.named(self.backups).checkpoint)
        shutil.rmtree(self.live)
        make(self.live)
        self.new = content(self.live)

    def named(self, place: Path) -> Entry:
        """What is asked for, as a person finds it."""
        return next(entry for entry in entries(place) if entry.folder.name == self.name)

    def which(self, checkpoint: Path) -> str:
        return {str(self.old): "old", str(self.new): "new"}[str(content(checkpoint))]

    def lying(self) -> tuple[str, ...]:
        """What is at the place, and then what the quarantine holds; each of it is equal to one of the two, in every byte."""
        held = [entry for entry in entries(self.place) if os.path.lexists(entry.checkpoint)]
        assert all(entry.wrong is None and verify(entry) == entry.manifest for entry in held)
        at_its_place = self.which(self.live) if self.live.exists() else "nothing"
        return at_its_place, *sorted(self.which(entry.checkpoint) for entry in held)


@pytest.fixture
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield World(Path(folder) / "data")


def exchange(world: World) -> None:
    restore(world.named(world.place), world.live, world.root, INSTEAD)


@pytest.mark.parametrize("recovers", [False, True])
def test_an_exchange_that_is_killed(world: World, recovers: bool) -> None:
    """Both lie somewhere, each once. Asked for again by its name, the old one is back, unless nothing is left to say that it is: then it was back before."""
    seen = set()
    for _ in every_crash(world.begin, lambda: exchange(world)):
        was = world.lying()
        seen.add(was)
        if recovers:
            recover(world.place)
            assert world.lying() == was
        if any(entry.folder.name == world.name and (entry.folder / LIST).exists() for entry in entries(world.place)):
            exchange(world)
            assert not any(entry.folder.name == world.name for entry in entries(world.place))
        else:
            assert was == ("old", "new")
        recover(world.place)
        (put_away,) = entries(world.place)
        assert world.lying() == ("old", "new") and put_away.manifest is not None
        assert (put_away.manifest.kind, put_away.manifest.about) == (Kind.REPLACED, {"of": "the caller", "for": world.name})
    assert seen == {("new", "old"), ("nothing", "new", "old"), ("old", "new")}


def test_an_exchange_for_a_backup_that_is_killed(world: World) -> None:
    """The backup stays as it is. Asked for again, a copy of it is at the place, and what was there is held once."""
    seen = set()

    def exchanged() -> None:
        restore_backup(world.named(world.backups), world.live, world.root, 4, INSTEAD)

    for _ in every_crash(world.begin_with_a_backup, exchanged):
        seen.add(world.lying())
        assert world.which(world.named(world.backups).checkpoint) == "old"
        exchanged()
        recover(world.place)
        assert recover(world.backups) == []
        assert world.lying() == ("old", "new") and world.which(world.named(world.backups).checkpoint) == "old"
    assert seen == {("new",), ("nothing", "new"), ("old", "new")}


def test_a_way_back_that_is_killed(world: World) -> None:
    """The old one is refused when it has been moved in already: it goes back, and then the new one. Killed there, nothing is lost either."""
    seen = set()

    def refused() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quarantine, "differences", lambda tree, listing, *, content: changed(tree, listing, content=content))
            with pytest.raises(Refused, match="was changed while it was moved back, so it is in the quarantine again: seen"):
                exchange(world)

    def changed(tree: Path, listing: Path, *, content: bool) -> Iterator[str]:
        yield from ["seen"] if tree == world.live and listing.parent.name == world.name and not content else differences(tree, listing, content=content)

    for _ in every_crash(world.begin, refused):
        seen.add(world.lying())
        exchange(world)
        recover(world.place)
        assert world.lying() == ("old", "new")
    world.begin()
    refused()
    assert world.lying() == ("new", "old")
    assert seen == {("new", "old"), ("nothing", "new", "old"), ("old", "new")}
