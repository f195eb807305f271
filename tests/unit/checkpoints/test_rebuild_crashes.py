"""Killed (SIGKILL) before any change on disk while a checkpoint is made again: what lay there is kept, and the new one is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k2.checkpoints.entries import entries, recover, verify
from k2.checkpoints.examine import folders
from k2.checkpoints.manifest import Kind
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.rebuild_files import files_of, write
from k2.checkpoints.rebuild_plan import Begin, BronzePlan, Place, SilverPlan
from k2.launchers import rebuilding

from .crashes import every_crash
from .folders import Content, content, make

BRONZE = BronzePlan("t", "0f1e2d3c-0000-4000-8000-000000000000", (Begin("0", 10, (0, 12), (0, 10)),), files=4, opened=0, since=None)
SILVER = SilverPlan("s", 2, datetime(2026, 1, 1, tzinfo=UTC), Place(101, 1), Place(101, 3), (60, 40, 20), owed=0)
Plan = BronzePlan | SilverPlan


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder) / "data" / "checkpoints"


def written(tree: Path) -> dict[str, bytes]:
    return {str(file.relative_to(tree)): file.read_bytes() for file in tree.rglob("*") if file.is_file()}


@pytest.mark.parametrize("plan", [BRONZE, SILVER])
def test_a_writing_that_is_killed(root: Path, plan: Plan) -> None:
    """Until its last rename nobody takes it for a checkpoint. Then another plan is written: nothing of what was begun is in that."""
    another = replace(plan, query="another", batch=7) if isinstance(plan, SilverPlan) else replace(plan, query="another")
    there = set()

    def begin() -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)

    for _ in every_crash(begin, lambda: write(plan, root / "x")):
        there.add((root / "x").exists())
        assert folders(root, {}) == (["x"] if (root / "x").exists() else [])
        if (root / "x").exists():
            assert written(root / "x") == files_of(plan)
            shutil.rmtree(root / "x")
        write(another, root / "x")
        assert written(root) == {f"x/{name}": text for name, text in files_of(another).items()}
    assert there == {True, False}


@pytest.mark.parametrize("plan", [BRONZE, SILVER])
def test_a_replacing_that_is_killed(root: Path, plan: Plan) -> None:
    """As a start does it: what lay there is at its place or held, in every byte. Done again, the new one is there, and what lay there is held once."""
    live, seen = root / "x", set()
    before: Content = {}

    def begin() -> None:
        shutil.rmtree(root.parent, ignore_errors=True)
        make(live)
        before.update(content(live))

    for _ in every_crash(begin, lambda: rebuilding.replace(plan, live, 7)):
        held = [entry for entry in entries(quarantine_of(root)) if entry.checkpoint.exists()]
        assert all(entry.wrong is None and verify(entry) == entry.manifest and content(entry.checkpoint) == before for entry in held)
        at_its_place = "nothing" if not live.exists() else "old" if content(live) == before else "new"
        assert at_its_place != "new" or written(live) == files_of(plan)
        assert len(held) == (at_its_place != "old")
        seen.add(at_its_place)
        rebuilding.replace(plan, live, 7)
        recover(quarantine_of(root))
        (entry,) = entries(quarantine_of(root))
        assert written(live) == files_of(plan) and content(entry.checkpoint) == before
        assert entry.manifest is not None and entry.manifest.kind is Kind.REPLACED and sorted(f.name for f in root.iterdir()) == ["x"]
    assert seen == {"old", "nothing", "new"}
