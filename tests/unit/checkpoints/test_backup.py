"""Backups of checkpoints: made while the query runs, kept for some time, and going back only where nothing is lost or doubled."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2.checkpoints.backup import back_up, backups_of, restore_backup
from k2.checkpoints.entries import PURGING, Entry, Refused, entries, recover, verify
from k2.checkpoints.manifest import MANIFEST, Kind, Why
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.reader import read_tail

AT = datetime(2026, 11, 1, 3, 0, tzinfo=UTC)
QUERY = "0c1b7cf6-6e0f-4f6c-9a3e-3d5f2c1b0a99"


class Query:
    """Writes its logs as Spark does: each file is renamed into place, planned before it is committed, old batches are purged."""

    def __init__(self, folder: Path, retained: int = 100) -> None:
        self.folder, self.retained, self.batch = folder, retained, 0
        for log in ("offsets", "commits", "sources/0"):
            (folder / log).mkdir(parents=True)
        self.write("metadata", json.dumps({"id": QUERY}))
        self.write("sources/0/0", 'v1\n{"topic":{"0":0}}')

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        part = path.with_name(f".{path.name}.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.tmp")
        part.write_text(text)
        part.rename(path)

    def plan(self) -> None:
        self.write(f"offsets/{self.batch}", f'v1\n{{"batch":{self.batch}}}\n{{"topic":{{"0":{10 * self.batch}}}}}')

    def commit(self) -> None:
        self.write(f"commits/{self.batch}", "v1\n{}")
        for log in ("offsets", "commits"):
            (self.folder / log / str(self.batch - self.retained)).unlink(missing_ok=True)
        self.batch += 1

    def run(self, batches: int) -> None:
        for _ in range(batches):
            self.plan()
            self.commit()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def query(root: Path) -> Query:
    """Batches 0 to 3 are committed."""
    made = Query(root / "bronze-x")
    made.run(4)
    return made


def monthly(root: Path, *, month: int = 0, keep: int = 3, stopped: bool = False) -> Entry:
    at = AT + timedelta(days=30 * month)
    return back_up(root / "bronze-x", root, who="k2", why="monthly", at=at, keep=keep, about={"table": "bronze_x"}, stopped=stopped)


def content(tree: Path) -> dict[str, tuple[bytes, int] | None]:
    return {str(p.relative_to(tree)): (p.read_bytes(), p.stat().st_mtime_ns) if p.is_file() else None for p in tree.rglob("*")}


def restored(backup: Entry, root: Path, newest: int | None) -> Path:
    """Its checkpoint is gone; the table's newest batch is given."""
    shutil.rmtree(root / "bronze-x")
    restore_backup(backup, root / "bronze-x", root, newest)
    return root / "bronze-x"


def test_a_backup_goes_back_as_it_was_taken(root: Path, query: Query) -> None:
    """It is where the query stood, each file with its time; it stays where it is, and its manifest says what it is."""
    before = read_tail(root / "bronze-x")
    live = content(root / "bronze-x")
    backup = monthly(root)
    assert entries(backups_of(root, "bronze-x")) == [backup] and backup.folder.parent == root.with_name("checkpoints.backups") / "bronze-x"
    m = backup.manifest
    assert m is not None and (m.kind, m.query_id, m.last_planned, m.last_committed, m.about) == (Kind.BACKUP, QUERY, 3, 3, {"table": "bronze_x"})
    assert content(root / "bronze-x") == live and set(content(backup.checkpoint).items()) < set(live.items())
    query.run(5)
    path = restored(backup, root, 3)
    assert read_tail(path) == before and content(path) == content(backup.checkpoint)
    assert verify(backup) == m and entries(backups_of(root, "bronze-x")) == [backup]


def test_the_batch_in_flight_is_planned_as_it_was(root: Path, query: Query) -> None:
    """Whether the table has it or not: with the same offsets it is repeated or passed by."""
    query.plan()
    backup = monthly(root)
    assert backup.manifest is not None and (backup.manifest.last_planned, backup.manifest.last_committed) == (4, 3)
    for newest in (3, 4):
        tail = read_tail(restored(backup, root, newest))
        assert (tail.last_offset_batch, tail.last_commit_batch, tail.committed) == (4, 3, {"topic": {"0": 30}})


def test_the_first_batch_is_enough(root: Path) -> None:
    Query(root / "bronze-x").run(1)
    tail = read_tail(restored(monthly(root), root, 0))
    assert (tail.last_offset_batch, tail.last_commit_batch) == (0, 0)


@pytest.mark.parametrize(
    ("newest", "said"),
    [
        (None, f"the newest batch of query {QUERY} in its table cannot be known: find out first, or rebuild the checkpoint from the table"),
        (5, f"the table has batch 5 of query {QUERY}, and the backup ends with 4: rows would be lost or doubled, so rebuild"),
        (2, f"the table ends with batch 2 of query {QUERY}, and the backup has committed 3: what lies between would be lost"),
        (-1, "the table ends with batch -1"),
    ],
)
def test_where_rows_would_be_lost_or_doubled_nothing_goes_back(root: Path, query: Query, newest: int | None, said: str) -> None:
    query.plan()
    backup = monthly(root)
    with pytest.raises(Refused, match=said):
        restored(backup, root, newest)
    verify(backup)
    assert not (root / "bronze-x").exists()


def test_a_backup_goes_onto_nothing(root: Path, query: Query) -> None:
    """Unless it is said why: then what is there goes into the quarantine, but for nothing that is refused."""
    backup = monthly(root)
    before = content(root)
    with pytest.raises(Refused, match="bronze-x exists: put what is there into the quarantine first"):
        restore_backup(backup, root / "bronze-x", root, 3)
    with pytest.raises(Refused, match="is not right below"):
        restore_backup(backup, root.with_name("elsewhere"), root, 3)
    why = Why(kind=Kind.REPLACED, who="dba", why="it takes its place", at=AT)
    with pytest.raises(Refused, match="rows would be lost or doubled"):
        restore_backup(backup, root / "bronze-x", root, 9, why)
    verify(backup)
    assert content(root) == before and entries(quarantine_of(root)) == []
    query.run(1)
    there = content(root / "bronze-x")
    restore_backup(backup, root / "bronze-x", root, 3, why)
    (held,) = entries(quarantine_of(root))
    assert content(root / "bronze-x") == content(backup.checkpoint) and content(held.checkpoint) == there
    restore_backup(backup, root / "bronze-x", root, 3, why)
    assert entries(quarantine_of(root)) == [held], "it is there already"


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file changed": (lambda b: (b / "checkpoint" / "offsets" / "3").write_text("v1"), "offsets/3 has 2 bytes"),
    "a file gone": (lambda b: (b / "checkpoint" / "metadata").unlink(), "metadata is missing"),
    "no manifest": (lambda b: (b / MANIFEST).unlink(), "manifest.json: No such file"),
    "purged": (lambda b: b.rename(b.with_name(b.name + PURGING)), "No such file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_does_not_go_back(root: Path, query: Query, damage: str) -> None:
    backup = monthly(root)
    make, said = DAMAGES[damage]
    make(backup.folder)
    with pytest.raises(Refused, match=said):
        restored(backup, root, 3)
    assert not (root / "bronze-x").exists()


def test_the_oldest_go_and_what_is_wrong_stays(root: Path, query: Query) -> None:
    """One that cannot be read counts as none, and is for people to look at. An interrupted deletion is gone on with."""
    place = backups_of(root, "bronze-x")
    first, second = monthly(root, keep=2), monthly(root, month=1, keep=2)
    (second.folder / MANIFEST).write_text("{}")
    third = monthly(root, month=2, keep=2)
    assert {e.folder for e in entries(place)} == {first.folder, second.folder, third.folder}
    third.folder.rename(third.folder.with_name(third.folder.name + PURGING))
    fourth, fifth = monthly(root, month=3, keep=2), monthly(root, month=4, keep=2)
    assert {e.folder for e in entries(place)} == {second.folder, fourth.folder, fifth.folder}
    only = monthly(root, month=5, keep=1)
    assert {e.folder for e in entries(place)} == {second.folder, only.folder}


def test_a_clock_that_went_back_does_not_delete_the_new_one(root: Path, query: Query) -> None:
    monthly(root, month=5)
    new = monthly(root, month=0, keep=1)
    assert entries(backups_of(root, "bronze-x")) == [new]


def test_no_backup_goes_when_the_new_one_fails(root: Path, query: Query) -> None:
    backup = monthly(root)
    (root / "bronze-x" / "metadata").unlink()
    with pytest.raises(Refused, match="bronze-x has no metadata: there is nothing to go back to"):
        monthly(root, month=1, keep=1)
    assert entries(backups_of(root, "bronze-x")) == [backup] and recover(backups_of(root, "bronze-x")) == []


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no commit": (lambda c: shutil.rmtree(c / "commits"), "has no batch committed: there is nothing to go back to"),
    "newer format": (lambda c: (c / "commits" / "3").write_text("v2\n{}"), "could not be copied in 3 attempts: .*commits/3 is of log version 'v2'"),
    "a batch missing": (lambda c: (c / "offsets" / "2").unlink(), "could not be copied in 3 attempts: .*offsets/2 does not exist"),
    "plans ahead": (lambda c: shutil.copy(c / "offsets" / "3", c / "offsets" / "7"), "attempts: its copy ends with batch 3 committed and 7 planned"),
    "a loop": (lambda c: (c / "sources" / "0" / "loop").symlink_to("."), "sources/0/loop is a symbolic link"),
    "a file": (lambda c: (shutil.rmtree(c), c.write_text("")), "bronze-x is no folder"),
    "state": (
        lambda c: (c / "state" / "0").mkdir(parents=True),
        "has state, which its query changes while it is copied: stop the stream, then make the backup",
    ),
}


@pytest.mark.parametrize("bad", REFUSED)
def test_what_cannot_be_backed_up_is_told(root: Path, query: Query, bad: str) -> None:
    make, said = REFUSED[bad]
    make(root / "bronze-x")
    with pytest.raises(Refused, match=said):
        monthly(root)
    assert entries(backups_of(root, "bronze-x")) == []


def test_to_keep_none_is_refused(root: Path, query: Query) -> None:
    with pytest.raises(Refused, match="keep is 0: keep 1 backup or more"):
        monthly(root, keep=0)


def test_state_is_copied_of_a_query_that_is_stopped(root: Path, query: Query) -> None:
    (root / "bronze-x" / "state" / "0").mkdir(parents=True)
    (root / "bronze-x" / "state" / "0" / "4.delta").write_text("d")
    backup = monthly(root, stopped=True)
    assert (restored(backup, root, 3) / "state" / "0" / "4.delta").read_text() == "d"


def test_a_query_that_runs_though_it_should_not_is_seen(root: Path, query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    """It commits while its state is copied."""
    (root / "bronze-x" / "state" / "0").mkdir(parents=True)
    copytree = shutil.copytree

    def meanwhile(source: Path, *args: object, **kwargs: object) -> object:
        query.run(1)
        return copytree(source, *args, **kwargs)

    monkeypatch.setattr(shutil, "copytree", meanwhile)
    with pytest.raises(Refused, match="bronze-x was written to while it was copied: stop its stream first"):
        monthly(root, stopped=True)
    assert entries(backups_of(root, "bronze-x")) == []


@pytest.mark.parametrize("retained", [2, 100])
def test_a_backup_of_a_running_query_is_one_moment(root: Path, retained: int) -> None:
    """Whatever it commits and purges meanwhile. Keeping few batches, it may be too fast to be copied; that is told."""
    query = Query(root / "bronze-x", retained)
    query.run(3)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            query.run(1)

    writer = threading.Thread(target=work)
    writer.start()
    made, told = 0, ""
    try:
        for month in itertools.count():
            try:
                backup = monthly(root, month=month, keep=2)
            except Refused as error:
                told = str(error)
                assert retained == 2 and "could not be copied in 3 attempts" in told
            else:
                assert backup.manifest is not None
                batch, planned, made = backup.manifest.last_committed, backup.manifest.last_planned, made + 1
                assert batch is not None and planned in (batch, batch + 1)
                tail = read_tail(backup.checkpoint)
                assert (tail.last_commit_batch, tail.last_offset_batch, tail.committed) == (batch, planned, {"topic": {"0": 10 * batch}})
                names = {f"{log}/{n}" for log in ("offsets", "commits") for n in (batch - 1, batch)} | {f"offsets/{planned}", "metadata", "sources/0/0"}
                assert {name for name, found in content(backup.checkpoint).items() if found} == names
            if made >= 5 or month >= 100:
                break
    finally:
        ended.set()
        writer.join()
    assert made >= 5 or (retained == 2 and told)
    assert [e.wrong for e in entries(backups_of(root, "bronze-x"))] == [None] * min(made, 2)
