"""The agent's memory on disk."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from k2.launchers import records
from k2.launchers.records import Record, boot_id
from k2.processes import ProcessId


def home(tmp_path: Path) -> Any:
    return SimpleNamespace(run=tmp_path, driver_dir=lambda stream, fence: tmp_path / "drivers" / f"{stream}#{fence}")


def record(stream: str = "a", fence: int = 1, **changes: Any) -> Record:
    return Record(**{"stream": stream, "fence": fence, "how": "cold", "boot": boot_id(), "started_at": datetime(2026, 1, 1, tzinfo=UTC), **changes})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All fields survive, pid and start time stand at the top for other readers, and no temporary file is left."""
    here = home(tmp_path)
    written = record(exit_code=-9, ended_at=datetime(2026, 1, 2, tzinfo=UTC), asked=True)
    written.process = ProcessId(12, 345)
    records.write(here, written)
    assert records.read_all(here) == ([written], [])
    folder = here.driver_dir("a", 1)
    assert [p.name for p in folder.iterdir()] == ["record.json"]
    facts = json.loads((folder / "record.json").read_text())
    assert (facts["pid"], facts["start"]) == (12, 345)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_records_come_in_order_and_damage_is_told(tmp_path: Path) -> None:
    """Fences are ordered as numbers; a damaged record hides no other; a folder without one is none."""
    here = home(tmp_path)
    for fence in (10, 9):
        records.write(here, record(fence=fence))
    here.driver_dir("a", 11).mkdir()
    here.driver_dir("b", 1).mkdir()
    (here.driver_dir("b", 1) / "record.json").write_text("{")
    found, unreadable = records.read_all(here)
    assert [r.fence for r in found] == [9, 10]
    assert len(unreadable) == 1 and "b#1" in unreadable[0]


def test_alive_needs_the_same_process_of_the_same_boot(tmp_path: Path) -> None:
    """Another start time or another boot is another process."""
    mine = record()
    assert not records.alive(mine)
    mine.process = ProcessId.of(os.getpid())
    assert records.alive(mine)
    mine.boot = "another"
    assert not records.alive(mine)
    mine.boot = boot_id()
    mine.process = ProcessId(os.getpid(), 1)
    assert not records.alive(mine)


def test_the_living_driver_is_the_newest_of_this_boot(tmp_path: Path) -> None:
    """One that ended, one of another boot and another stream's are none."""
    here, mine = home(tmp_path), ProcessId.of(os.getpid())
    for fence, boot, process in ((1, boot_id(), mine), (2, boot_id(), mine), (3, "another", mine), (4, boot_id(), ProcessId(os.getpid(), 1))):
        written = record(fence=fence, boot=boot)
        written.process = process
        records.write(here, written)
    assert records.living_driver(here, "a") == (2, mine)
    assert records.living_driver(here, "b") is None
