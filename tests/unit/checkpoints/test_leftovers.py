"""Taking leftovers out of a checkpoint, and putting them back: never anything else, and nothing lost where it was interrupted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from k2.checkpoints.doctor import Health, Surroundings
from k2.checkpoints.entries import Entry, Refused, entries
from k2.checkpoints.examine import examine
from k2.checkpoints.leftovers import CHUNK, Taken, put_back, take_away
from k2.checkpoints.manifest import Kind, Why
from k2.checkpoints.plan import Item, Plan, plan
from k2.checkpoints.quarantine import quarantine_of
from k2.state.locks import Locked

from .folders import LEFTOVER, NOW, make, touch, write

OURS = Surroundings(stream="bronze_binance")
WHY = Why(kind=Kind.LEFTOVERS, who="test", why="left by crashed writes", at=NOW)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.checkpoints.examine.LOOK_AGAIN_SECONDS", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def littered(root: Path, count: int = 3) -> Path:
    """A healthy checkpoint with leftovers of the day before yesterday, each with its checksum."""
    path = make(root / "bronze-binance")
    for number in range(count):
        name = f".{number}.8a5b8c1e-0a4e-4c40-9f3f-{number:012d}.tmp"
        write(path / "offsets" / name, f"half {number}", hours=48)
        write(path / "offsets" / f".{name}.crc", "sum", hours=48)
    return path


def planned(path: Path, name: str = "plan") -> Plan:
    return plan(path, OURS, NOW, path.parent.parent / f"{name}.jsonl")[1]


def take(made: Plan, root: Path, *, most: int = 1000, seconds: float = 60, hold: contextlib.AbstractContextManager[None] | None = None) -> Taken:
    return take_away(made, root, WHY, most=most, seconds=seconds, hold=lambda: hold or contextlib.nullcontext())


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    return {str(f.relative_to(path)): (f.read_bytes(), f.stat().st_mtime_ns) for f in path.rglob("*") if f.is_file()}


def only_entry(root: Path) -> Entry:
    (entry,) = entries(quarantine_of(root))
    return entry


def test_leftovers_go_and_come_back(root: Path) -> None:
    """The checkpoint is healthy without them, and byte for byte what it was with them."""
    path = littered(root)
    before = contents(path)
    taken = take(planned(path), root)
    assert (taken.files, taken.bytes, taken.stayed) == (6, 3 * 6 + 3 * 3, {})
    assert examine(path, OURS, NOW).health is Health.HEALTHY and len(contents(path)) == len(before) - 6
    assert put_back(only_entry(root), root) == 6
    assert contents(path) == before and entries(quarantine_of(root)) == []


def test_what_is_needed_never_goes(root: Path) -> None:
    """A plan that was written for another state of things takes nothing that is in use by now."""
    path = littered(root)
    write(path / "commits" / ".77.crc", hours=48)
    made = planned(path)
    write(path / "commits" / "77", hours=48)
    write(path / "offsets" / LEFTOVER, hours=48)
    touch(path / "offsets" / ".0.8a5b8c1e-0a4e-4c40-9f3f-000000000000.tmp", hours=0)
    (path / "offsets" / ".1.8a5b8c1e-0a4e-4c40-9f3f-000000000001.tmp").unlink()
    taken = take(made, root)
    assert taken.stayed == {"is needed": 2, "was written to since": 1, "is gone already": 1}, "77's checksum, and that of a file that stays"
    assert (path / "commits" / ".77.crc").exists() and (path / "offsets" / LEFTOVER).exists()


def test_a_longer_batch_keeps_them(root: Path) -> None:
    """Of a query whose batches take days, two days are no age: the plan has none of them, and a plan of before takes none."""
    path = littered(root)
    before = planned(path)
    touch(path / "offsets" / "5", hours=25)
    assert (after := planned(path, "another")).files == 0
    taken = take(replace(before, before=after.before), root)
    assert (taken.files, taken.entry, entries(quarantine_of(root)), taken.stayed) == (0, None, [], {"may be of a batch that is under way": 6})


def test_a_batch_in_flight_keeps_what_it_writes(root: Path) -> None:
    """Planned three days ago and not committed: what was written since may be its own, however old. What was there before is not."""
    path = littered(root)
    write(path / "offsets" / "6", (path / "offsets" / "5").read_text(), hours=50)
    assert planned(path).files == 0
    touch(path / "offsets" / "6", hours=47)
    assert planned(path).files == 6


def test_a_lock_that_is_not_to_be_had_ends_the_run(root: Path) -> None:
    """What was moved is told, the rest waits, and an entry without files does not stay."""
    path = littered(root, CHUNK)
    times = [0]

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        times[0] += 1
        if times[0] != 1:
            raise Locked("a start is under way")
        yield

    taken = take_away(planned(path), root, WHY, most=1000, seconds=60, hold=hold)
    assert (taken.files, taken.stayed) == (CHUNK, {"a start is under way": CHUNK}) and only_entry(root).folder.name == taken.entry
    assert take_away(planned(path), root, WHY, most=1000, seconds=60, hold=hold).entry is None and len(entries(quarantine_of(root))) == 1


def test_an_error_before_the_first_file_leaves_no_entry(root: Path) -> None:
    """As when the database that holds the lock is away: nothing lies there that says of itself that it holds files."""

    path = littered(root)

    def away() -> contextlib.AbstractContextManager[None]:
        raise OSError("no database")

    with pytest.raises(Refused, match="no database"):
        take_away(planned(path), root, WHY, most=1000, seconds=60, hold=away)
    assert entries(quarantine_of(root)) == []


def test_a_checksum_goes_only_after_its_file(root: Path) -> None:
    """While the file is there, its checksum stays."""
    path = littered(root, 1)
    made = planned(path)
    touch(path / "offsets" / ".0.8a5b8c1e-0a4e-4c40-9f3f-000000000000.tmp", hours=0)
    assert take(made, root).stayed == {"was written to since": 1, "is needed": 1}


@pytest.mark.parametrize(
    "path", ["metadata", "sources/0/0", "offsets/5", "offsets/4", "commits/5", ".metadata.crc", "offsets/.5.crc", "state/0/_metadata/metadata"]
)
def test_no_plan_can_take_what_a_checkpoint_lives_by(root: Path, path: str) -> None:
    """Not even one that names it, with its right size and age."""
    checkpoint = littered(root, 1)
    write(checkpoint / ".metadata.crc")
    write(checkpoint / "state" / "0" / "_metadata" / "metadata")
    status = touch(checkpoint / path, hours=100).stat()
    made = planned(checkpoint)
    line = json.dumps(asdict(Item(path, status.st_size, status.st_mtime, "somebody wrote this"))) + "\n"
    made.file.write_text(line + json.dumps({"plan": made.as_dict() | {"sha256": hashlib.sha256(line.encode()).hexdigest()}}) + "\n")
    assert take(replace(made, refused=None, before=NOW.timestamp()), root).stayed == {"is needed": 1}
    assert (checkpoint / path).exists()


def test_a_run_is_bounded(root: Path) -> None:
    """By files and by seconds; the rest waits, and the next run takes it."""
    path = littered(root, CHUNK)
    assert (take(planned(path), root, most=10).files, take(planned(path), root, seconds=0).stayed) == (10, {"waits for the next run": 2 * CHUNK - 10})
    assert take(planned(path), root).files == 2 * CHUNK - 10
    assert examine(path, OURS, NOW).health is Health.HEALTHY


def test_an_entry_without_files_does_not_stay(root: Path) -> None:
    """All that was to go was touched while its list was written."""
    path = littered(root)

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        for file in (path / "offsets").glob(".*0000*"):
            touch(file, hours=0)
        yield

    taken = take_away(planned(path), root, WHY, most=1000, seconds=60, hold=hold)
    assert (taken.files, taken.entry, taken.stayed, entries(quarantine_of(root))) == (0, None, {"was written to since": 6}, [])


def test_nothing_is_taken_from_a_damaged_one(root: Path) -> None:
    """The refusal has the reason, and nothing was moved."""
    path = littered(root)
    (path / "metadata").unlink()
    before = contents(path)
    with pytest.raises(Refused, match="damaged: metadata is missing"):
        take(planned(path), root)
    assert contents(path) == before and entries(quarantine_of(root)) == []


def test_the_lock_is_held_while_files_move(root: Path) -> None:
    """And not while they are looked for: a start waits for one chunk at most."""
    path = littered(root, CHUNK)
    moments: list[int] = []

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        moments.append(len(contents(path)))
        yield

    take_away(planned(path), root, WHY, most=1000, seconds=60, hold=hold)
    assert moments == [26 + 2 * CHUNK, 26 + CHUNK]


def _die_at(rename: int) -> None:
    """This process kills itself in place of so many renames further on."""
    real, left = Path.rename, [rename]

    def counted(self: Path, target: Path) -> Path:
        if left[0] == 0:
            os.kill(os.getpid(), 9)
        left[0] -= 1
        return real(self, target)

    Path.rename = counted  # type: ignore[method-assign]


def test_a_kill_at_any_rename_loses_nothing(root: Path) -> None:
    """Whatever was moved is in the entry, the rest where it was; put back, all is as it was."""
    path = littered(root)
    before = contents(path)
    for dies_at in range(6):
        if (child := os.fork()) == 0:
            _die_at(dies_at)
            take(planned(path), root)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
        assert len(contents(path)) == len(before) - dies_at
        assert examine(path, OURS, NOW).health in (Health.HEALTHY, Health.GROWING)
        assert put_back(only_entry(root), root) == dies_at
        assert contents(path) == before


def test_what_was_changed_in_the_quarantine_stays_there(root: Path) -> None:
    """Only what is as it was goes back."""
    path = littered(root, 1)
    take(planned(path), root)
    entry = only_entry(root)
    next(f for f in entry.checkpoint.rglob("*.tmp")).write_text("another")
    with pytest.raises(Refused, match="is not what it was"):
        put_back(entry, root)


def test_a_place_that_is_taken_is_not_overwritten(root: Path) -> None:
    """Somebody else's file there is theirs."""
    path = littered(root, 1)
    take(planned(path), root)
    write(path / "offsets" / ".0.8a5b8c1e-0a4e-4c40-9f3f-000000000000.tmp", "new")
    with pytest.raises(Refused, match="exists: move it away"):
        put_back(only_entry(root), root)
    assert (path / "offsets" / ".0.8a5b8c1e-0a4e-4c40-9f3f-000000000000.tmp").read_text() == "new"
