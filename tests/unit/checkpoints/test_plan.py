"""The plan of a pruning: what is in it, what refuses it, and that it cannot be changed unseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2.checkpoints import plan as module
from k2.checkpoints.doctor import Surroundings
from k2.checkpoints.plan import Plan, PlanChanged, items, plan

from .folders import LEFTOVER, NOW, make, write

OURS = Surroundings(stream="bronze_binance")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.checkpoints.examine.LOOK_AGAIN_SECONDS", 0)


def planned(root: Path) -> Plan:
    return plan(root, OURS, NOW, root.parent / "plans" / "a.jsonl")[1]


def test_what_may_go_and_why(tmp_path: Path) -> None:
    """A temporary file of the day before yesterday, its checksum, and one of a file that is gone; each with the invariant."""
    root = make(tmp_path / "c")
    for name in (f"offsets/{LEFTOVER}", f"offsets/.{LEFTOVER}.crc", "commits/.77.crc"):
        write(root / name, "four", hours=48)
    made = planned(root)
    found = {item.path: item for item in items(made.file)}
    assert set(found) == {f"offsets/{LEFTOVER}", f"offsets/.{LEFTOVER}.crc", "commits/.77.crc"}
    assert all("I6" in item.why and item.size == 4 for item in found.values())
    assert (made.files, made.bytes, made.refused, made.unusual) == (3, 12, None, None)


def test_what_is_young_stays(tmp_path: Path) -> None:
    """A write may be under way."""
    root = make(tmp_path / "c")
    write(root / "offsets" / LEFTOVER, hours=23)
    assert list(items(planned(root).file)) == []


def test_nothing_goes_from_a_damaged_one(tmp_path: Path) -> None:
    """The plan says why."""
    root = make(tmp_path / "c", metadata=None)
    write(root / "offsets" / LEFTOVER, hours=48)
    assert "damaged: metadata is missing" in (planned(root).refused or "")


@pytest.mark.parametrize("how", ["a gap", "a link", "a file that nobody knows"])
def test_nothing_goes_from_one_that_is_not_well(tmp_path: Path, how: str) -> None:
    """Any anomaly: what cannot be known and what is about to break, too."""
    root = make(tmp_path / "c", offsets=[0, 1, 3, 4, 5] if how == "a gap" else range(6))
    write(root / "offsets" / LEFTOVER, hours=48)
    if how == "a link":
        (root / "sources" / "1").symlink_to(root)
    if how == "a file that nobody knows":
        write(root / "state" / "0" / "0" / "copy")
    assert planned(root).refused


def test_more_than_is_normal_needs_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of it left over: something else is wrong."""
    monkeypatch.setattr(module, "MANY_FILES", 20)
    root = make(tmp_path / "c")
    for number in range(40):
        write(root / "offsets" / f".{number}.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.tmp", hours=48)
    assert planned(root).unusual == "40 of its 66 files are leftovers"


@pytest.mark.parametrize("change", ["another path", "a line less", "an end less"])
def test_a_plan_that_was_changed_is_refused(tmp_path: Path, change: str) -> None:
    """It carries the digest of its lines."""
    root = make(tmp_path / "c")
    for number in (5, 6):
        write(root / "offsets" / f".{number}.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.tmp", hours=48)
    made = planned(root)
    lines = made.file.read_text().splitlines(keepends=True)
    if change == "another path":
        lines[0] = json.dumps(json.loads(lines[0]) | {"path": "metadata"}) + "\n"
    made.file.write_text("".join({"a line less": lines[1:], "an end less": lines[:-1]}.get(change, lines)))
    with pytest.raises(PlanChanged, match="make the plan anew"):
        list(items(made.file))
