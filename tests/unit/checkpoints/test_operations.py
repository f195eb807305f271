"""A thousand operations on a checkpoint in any order, beside a model of what must be true: no query is ever broken, and every undo is equal in every byte."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from k2.checkpoints import leftovers, quarantine
from k2.checkpoints.aside import take_new_identity
from k2.checkpoints.backup import back_up, backups_of, restore_backup
from k2.checkpoints.doctor import Health, Surroundings
from k2.checkpoints.entries import Entry, Refused, entries, purge
from k2.checkpoints.examine import examine
from k2.checkpoints.manifest import Kind, Why
from k2.checkpoints.plan import items, plan
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.reader import read_tail
from k2.checkpoints.rebuild_files import write
from k2.checkpoints.rebuild_plan import Begin, BronzePlan

from .folders import ABOUT, NOW

TTL = timedelta(days=30)
RETAINED = 5
"""Spark keeps a hundred batches; what is purged behind fewer shows more in fewer steps."""
KEPT_BACKUPS = 2
DAY_NS = 24 * 3600 * 10**9
OURS = Surroundings(stream="bronze_binance", known=True)
Contents = dict[str, tuple[bytes, int]]


def contents(path: Path) -> Contents:
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return {os.path.relpath(f, path): (f.read_bytes(), f.stat().st_mtime_ns) for f in files}


class Checkpoint(RuleBasedStateMachine):
    """One stream's checkpoint. `table` is the newest batch that each query has in the stream's table."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="k2-operations-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.root = self.home / "checkpoints"
        self.path = self.root / "bronze-binance"
        self.root.mkdir()
        self.now = NOW
        self.running = False
        self.query: str | None = None
        self.planned = self.committed = self.replayed = -1
        self.table: dict[str, int] = {}
        self.put: dict[str, Contents] = {}
        """What lies in the quarantine, as it was when it was put there."""
        self.backed_up: dict[str, tuple[str, int, int]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    def _spark(self, name: str, text: str) -> None:
        """As Spark writes: a temporary file, a rename, a checksum."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for written in (file, file.with_name(f".{file.name}.crc")):
            written.write_text(text if written is file else "crc")
            os.utime(written, (self.now.timestamp(),) * 2)

    def _why(self, kind: Kind) -> Why:
        self.now += timedelta(seconds=1)  # two things of one moment would have an order by chance
        return Why(kind=kind, who="test", why="an operation", at=self.now)

    def _away(self, kind: Kind) -> None:
        before = contents(self.path)
        entry = quarantine.put(self.path, self.root, self._why(kind))
        self.put[entry.folder.name] = before

    def _forget(self) -> None:
        self.query, self.planned, self.committed = None, -1, -1

    def _recall(self) -> None:
        tail = read_tail(self.path)
        self.query = tail.query_id
        self.planned, self.committed = (-1 if n is None else n for n in (tail.last_offset_batch, tail.last_commit_batch))

    # What Spark does.

    @initialize()
    def begin(self) -> None:
        self.start()

    @precondition(lambda self: not self.running)
    @rule()
    def start(self) -> None:
        """From what is there; without a checkpoint a new query begins, and an older copy goes on as another one, as when somebody has adopted it."""
        if self.query is not None and self.table.get(self.query, -1) > self.planned:
            before = contents(self.path)
            self.put[take_new_identity(self.path, 1).parent.name] = before
            self._recall()
        if self.query is None:
            self.query = str(uuid.uuid4())
            self._spark("metadata", json.dumps({"id": self.query}))
            self._spark("sources/0/0", '\0v1\n{"trades":{"0":0}}')
        for log in ("offsets", "commits"):
            (self.path / log).mkdir(exist_ok=True)
        self.running = True
        if self.planned > self.committed:
            self.replayed = self.planned
            self._commit()
        self.replayed = -1

    @precondition(lambda self: self.running)
    @rule(count=st.integers(1, 4), hours=st.sampled_from([0, 30]))
    def batches(self, count: int, hours: int) -> None:
        """Each lasts so long; one that lasts has lost a task, and what that was writing stays."""
        for _ in range(count):
            self._plan()
            if hours:
                self._half("commits", self.planned)
                self.now += timedelta(hours=hours)
            self._commit()

    def _plan(self) -> None:
        self.planned += 1
        self._spark(f"offsets/{self.planned}", f'v1\n{ABOUT}\n{{"trades":{{"0":{self.planned + 1}}}}}')
        for log in ("offsets", "commits"):
            for name in (str(self.planned - RETAINED), f".{self.planned - RETAINED}.crc"):
                (self.path / log / name).unlink(missing_ok=True)

    def _commit(self) -> None:
        """A batch that is in the table is done once more; no other may bear a number that the table has."""
        assert self.query is not None and self.planned >= self.table.get(self.query, -1)
        assert self.planned > self.table.get(self.query, -1) or self.planned == self.replayed
        self.table[self.query] = self.planned
        self._spark(f"commits/{self.planned}", 'v1\n{"nextBatchWatermarkMs":0}')
        self.committed = self.planned

    @precondition(lambda self: self.running)
    @rule()
    def stop(self) -> None:
        self.running = False

    @precondition(lambda self: self.running)
    @rule()
    def half_a_write(self) -> None:
        self._half("offsets", self.planned + 1)

    def _half(self, log: str, batch: int) -> None:
        """What a crashed write leaves: a temporary file and its checksum."""
        name = f".{batch}.{uuid.uuid4()}.tmp"
        for file in (self.path / log / name, self.path / log / f".{name}.crc"):
            file.write_text("half")
            os.utime(file, (self.now.timestamp(),) * 2)

    @precondition(lambda self: self.running)
    @rule(in_the_table=st.booleans())
    def kill(self, in_the_table: bool) -> None:
        """In the middle of a batch, when it was about to commit."""
        self._plan()
        if in_the_table and self.query is not None:
            self.table[self.query] = self.planned
        self.now += timedelta(seconds=1)
        self._half("commits", self.planned)
        self.running = False

    @rule(days=st.sampled_from([1, 31]))
    def time_passes(self, days: int) -> None:
        self.now += timedelta(days=days)

    # What people and nights do.

    @precondition(lambda self: self.query is not None)
    @rule(hours=st.sampled_from([25, 0]), most=st.sampled_from([1000, 1]))
    def prune(self, hours: int, most: int) -> None:
        self.now += timedelta(hours=hours)
        before = contents(self.path)
        may_go = self._left(before)
        _, made = plan(self.path, OURS, self.now, self.home / "plan.jsonl")
        assert made.refused is None and {item.path for item in items(made.file)} == may_go
        taken = leftovers.take_away(made, self.root, self._why(Kind.LEFTOVERS), most=most, seconds=60, hold=contextlib.nullcontext)
        after = contents(self.path)
        gone = {name: found for name, found in before.items() if name not in after}
        assert set(gone) <= may_go and len(gone) == taken.files == min(most, len(may_go))
        if taken.entry:
            self.put[taken.entry] = gone

    def _left(self, there: Contents) -> set[str]:
        """What crashes have left: it is a day old, and than three of the longest batch, and no batch that may be under way can have written it."""
        at = {name: changed for name, (_, changed) in there.items()}
        lasted = [at[f"commits/{n}"] - at[f"offsets/{n}"] for n in range(self.committed + 1) if {f"commits/{n}", f"offsets/{n}"} <= set(at)]
        latest = int(self.now.timestamp()) * 10**9 - max([DAY_NS, *(3 * ns for ns in lasted)])
        if self.planned > self.committed:
            latest = min(latest, at[f"offsets/{self.planned}"])
        return {name for name, changed in at.items() if ".tmp" in name and changed <= latest}

    @precondition(lambda self: not self.running and self.query is not None)
    @rule()
    def retire(self) -> None:
        self._away(Kind.RETIRED)
        self._forget()

    @precondition(lambda self: bool(self.put))
    @rule(which=st.integers(0, 5))
    def undo(self, which: int) -> None:
        """Anything that lies in the quarantine; of a stream that runs only what crashes have left."""
        name = list(self.put)[which % len(self.put)]
        (entry,) = (entry for entry in entries(quarantine_of(self.root)) if entry.folder.name == name)
        assert entry.manifest is not None
        if entry.manifest.kind is Kind.LEFTOVERS:
            if self.query is not None:
                before = contents(self.path)
                leftovers.put_back(entry, self.root)
                assert contents(self.path) == before | self.put.pop(entry.folder.name)
            else:
                with pytest.raises(Refused):
                    leftovers.put_back(entry, self.root)
            return
        if self.running:
            with pytest.raises(Refused, match="exists"):
                quarantine.restore(entry, self.path, self.root)
            return
        if self.query is not None:
            self._away(Kind.REPLACED)
        quarantine.restore(entry, self.path, self.root)
        assert contents(self.path) == self.put.pop(entry.folder.name)
        self._recall()

    @rule()
    def purge(self) -> None:
        """Only what has lain for its time, and nothing else with it."""
        for entry in entries(quarantine_of(self.root)):
            assert entry.manifest is not None
            if entry.manifest.at + TTL <= self.now:
                purge(entry, self.now, TTL)
                del self.put[entry.folder.name]
            else:
                with pytest.raises(Refused, match="is kept until"):
                    purge(entry, self.now, TTL)

    @precondition(lambda self: self.query is not None and self.committed >= 0)
    @rule()
    def backup(self) -> None:
        before, self.now = contents(self.path), self.now + timedelta(seconds=1)
        entry = back_up(self.path, self.root, who="test", why="an operation", at=self.now, keep=KEPT_BACKUPS)
        assert contents(self.path) == before and self.query is not None
        self.backed_up[entry.folder.name] = self.query, self.committed, self.planned
        there = self._backups()
        assert entry.folder.name in there and len(there) <= KEPT_BACKUPS
        self.backed_up = {name: stood for name, stood in self.backed_up.items() if name in there}

    def _backups(self) -> dict[str, Entry]:
        return {entry.folder.name: entry for entry in entries(backups_of(self.root, self.path.name))}

    @precondition(lambda self: not self.running and bool(self.backed_up))
    @rule(which=st.integers(0, KEPT_BACKUPS - 1))
    def go_back(self, which: int) -> None:
        """To a backup, if its table stands where that does."""
        name = list(self.backed_up)[which % len(self.backed_up)]
        query, committed, planned = self.backed_up[name]
        newest = self.table[query]
        if self.query is not None:
            self._away(Kind.REPLACED)
            self._forget()
        if committed <= newest <= planned:
            restore_backup(self._backups()[name], self.path, self.root, newest)
            self._recall()
            assert (self.query, self.committed, self.planned) == (query, committed, planned)
        else:
            with pytest.raises(Refused):
                restore_backup(self._backups()[name], self.path, self.root, newest)

    @precondition(lambda self: not self.running)
    @rule()
    def rebuild(self) -> None:
        """As another query, behind what the table has."""
        if self.query is not None:
            self._away(Kind.REPLACED)
        self.query, self.planned, self.committed = str(uuid.uuid4()), -1, -1
        write(BronzePlan("trades", self.query, (Begin("0", 7, (0, 9), (0, 7)),), 1, 0, None), self.path)

    # What must be true after each.

    @invariant()
    def the_checkpoint_is_what_its_query_left(self) -> None:
        tail = read_tail(self.path)
        stands = (tail.query_id, *(-1 if n is None else n for n in (tail.last_offset_batch, tail.last_commit_batch)))
        assert stands == (self.query, self.planned, self.committed)
        found = examine(self.path, OURS, self.now)
        assert found.health in (Health.HEALTHY, Health.GROWING), found.findings

    @invariant()
    def nothing_is_lost_from_the_quarantine(self) -> None:
        there = {entry.folder.name: entry for entry in entries(quarantine_of(self.root))}
        assert set(there) == set(self.put)
        assert all(entry.wrong is None and contents(entry.checkpoint) == self.put[name] for name, entry in there.items())


TestCheckpoint = Checkpoint.TestCase
TestCheckpoint.settings = settings(stateful_step_count=50, deadline=None)


def test_an_older_checkpoint_goes_on_as_another_query() -> None:
    """A backup goes back, its stream goes on, and what lay there before goes back in its turn: it is older than the table by then, or younger."""
    state = Checkpoint()
    try:
        state.begin()
        state.batches(3, 0)
        state.stop()
        state.backup()
        query = state.query
        state.go_back(0)
        state.start()
        state.batches(4, 0)
        state.stop()
        state.undo(0)
        state.start()
        state.batches(1, 0)
        assert state.query != query and state.table == {query: 6, state.query: 3}
        state.the_checkpoint_is_what_its_query_left()
        state.nothing_is_lost_from_the_quarantine()
    finally:
        state.teardown()
