"""One walk over a checkpoint: what is counted, and what is told of it."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from k2.checkpoints.names import is_leftover, summed_by, version
from k2.checkpoints.scan import NAMED, File, scan

from .folders import LEFTOVER, make, rocksdb, touch, write

CHECKSUM = f".{LEFTOVER}.crc"


def test_everything_is_counted(tmp_path: Path) -> None:
    """Files and bytes are those that lie there, checksums among them."""
    root = make(tmp_path / "c")
    found = scan(root)
    assert found.files == 26 and found.bytes == sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
    assert list(found.offsets.numbers) == list(found.commits.numbers) == list(range(6))
    assert found.sources["0"].start == "sources/0/0" and found.metadata is not None
    assert not (found.temporary.count or found.orphans.count or found.strays.count or found.irregular.count or found.unread)


def test_what_a_crash_left_is_told(tmp_path: Path) -> None:
    """Temporary files, their checksums, and checksums of files that are gone; whole pairs are not."""
    root = make(tmp_path / "c")
    for name in (LEFTOVER, CHECKSUM, ".99.crc"):
        write(root / "commits" / name)
    told: list[tuple[File, str | None]] = []
    found = scan(root, lambda file, of: told.append((file, of)))
    assert sorted((file.path, of) for file, of in told) == [
        (f"commits/{CHECKSUM}", f"commits/{LEFTOVER}"),
        (f"commits/{LEFTOVER}", None),
        ("commits/.99.crc", "commits/99"),
    ]
    assert (found.temporary.count, found.orphans.named) == (1, ["commits/.99.crc"])


@pytest.mark.parametrize(
    ("name", "leftover"),
    [
        (LEFTOVER, True),
        (".metadata.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.tmp", True),
        (".5.delta.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.TID12.tmp", True),
        ("5.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.tmp", False),
        (".5.tmp", False),
        ("5.tmp", False),
        (CHECKSUM, False),
    ],
)
def test_only_names_of_sparks_own_are_leftovers(name: str, leftover: bool) -> None:
    """Nobody else's temporary file is taken for one."""
    assert is_leftover(name) is leftover


@pytest.mark.parametrize(("name", "of"), [(".5.crc", "5"), ("5.delta.crc", "5.delta"), (".5.delta.crc.crc", "5.delta.crc")])
def test_what_a_checksum_is_of(name: str, of: str) -> None:
    """Hadoop's has a dot, Spark's own has none and a checksum itself."""
    assert summed_by(name) == of


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("12.delta", (12, "delta")),
        ("3_8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.zip", (3, "zip")),
        ("4.changelog", (4, "changelog")),
        ("x.delta", None),
        ("5", None),
    ],
)
def test_versions_of_state(name: str, found: tuple[int, str] | None) -> None:
    """With and without the id that newer formats add."""
    assert version(name) == found


@pytest.mark.parametrize(
    ("files", "broken"),
    [
        (["1.delta", "2.delta", "3.delta", "4.delta", "5.delta", "6.delta"], ""),
        (["4.snapshot", "5.delta", "6.delta"], ""),
        (["4.snapshot", "6.delta"], "needs version 5"),
        (["2.delta", "3.delta", "4.delta", "5.delta", "6.delta"], "needs version 1"),
        (["4.zip", "5.changelog", "6.changelog", "8.zip"], ""),
        (["7.zip"], "needs version 1"),
        (["6.zip", "7.delta"], ""),
    ],
)
def test_whether_state_can_be_loaded(tmp_path: Path, files: list[str], broken: str) -> None:
    """After batch 5 a start needs version 6: from a snapshot up to it, and every change since that."""
    root = make(tmp_path / "c")
    for name in files:
        rocksdb(root / "state" / "0" / "1" / name) if name.endswith(".zip") else write(root / "state" / "0" / "1" / name)
    operator = scan(root).operators["0"]
    assert operator.stores == 1 and bool(operator.broken) == bool(broken) and broken in "".join(operator.broken)


@pytest.mark.parametrize("gone", ["a table", "half of the snapshot", "all of the snapshot"])
def test_a_snapshot_of_rocksdb_needs_its_tables(tmp_path: Path, gone: str) -> None:
    """It names them; a file that was cut off by a power failure holds nothing."""
    root = make(tmp_path / "c")
    store = root / "state" / "0" / "1"
    rocksdb(store / "6.zip", "000008-x.sst")
    write(store / "SSTs" / "000008-x.sst")
    assert scan(root).operators["0"].broken == []
    if gone == "a table":
        (store / "SSTs" / "000008-x.sst").unlink()
    else:
        os.truncate(store / "6.zip", 60 if gone.startswith("half") else 0)
        write(store / "5.zip") if gone.startswith("all") else None
    assert len(scan(root).operators["0"].broken) == 1


@pytest.mark.parametrize("name", ["offsets/" + "9" * 30, "state/0/0/" + "9" * 30 + ".delta", "offsets/004", "commits/٥", "offsets/-1"])
def test_a_number_that_spark_does_not_write_is_a_stray(tmp_path: Path, name: str) -> None:
    """However many digits it has, and in whatever script."""
    root = make(tmp_path / "c")
    write(root / name)
    assert scan(root).strays.count == 1 and scan(root).offsets.last == 5


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    """A pipe waits for whoever writes into it; a link of a checksum's name is a link."""
    root = make(tmp_path / "c")
    os.mkfifo(root / "offsets" / LEFTOVER)
    (root / "offsets" / ".77.crc").symlink_to("nowhere")
    told: list[str] = []
    found = scan(root, lambda file, of: told.append(file.path))
    assert (found.irregular.count, told) == (2, [])


def test_names_of_any_bytes_can_be_told(tmp_path: Path) -> None:
    """Those that are not text are shown with their codes."""
    root = make(tmp_path / "c")
    Path(os.fsdecode(os.fsencode(root / "offsets") + b"/\xff\n")).write_text("x")
    assert scan(root).strays.named == ["offsets/\\xff\\x0a"]


def test_state_of_a_join_and_what_lies_beside_it(tmp_path: Path) -> None:
    """Named stores are stores, table files and descriptions are not, and none of them is a stray."""
    root = make(tmp_path / "c")
    for name in (
        *(
            "0/left-keyToNumValues/6.snapshot",
            "0/left-keyToNumValues/_metadata/schema",
            "0/right-keyToNumValues/6.zip",
            "0/right-keyToNumValues/SSTs/000008-x.sst",
        ),
        *("_metadata/metadata", "_metadata/v2/0", "_stateSchema/default/0_x", "0/SSTs/000008-y.sst"),
    ):
        rocksdb(root / "state" / "0" / name) if name.endswith(".zip") else write(root / "state" / "0" / name)
    found = scan(root)
    assert (found.operators["0"].stores, found.operators["0"].broken, found.strays.count) == (2, [], 0)
    assert found.operators["0"].bytes == sum(file.stat().st_size for file in (root / "state").rglob("*") if file.is_file())


def test_a_file_that_vanishes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark purges while we look."""
    root = make(tmp_path / "c")
    listed = os.scandir

    def purge(path: str) -> object:
        entries = listed(path)
        if path.endswith("/commits"):
            (root / "commits" / "0").unlink()
        return entries

    monkeypatch.setattr("k2.checkpoints.scan.os.scandir", purge)
    assert list(scan(root).commits.numbers) == [1, 2, 3, 4, 5]


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A loop ends, and what lies behind a link is not counted."""
    root = make(tmp_path / "c")
    (root / "state").symlink_to(root)
    (root / "offsets" / "7").symlink_to(root / "offsets" / "5")
    found = scan(root)
    assert (found.files, found.irregular.count, found.offsets.last) == (28, 2, 5)


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not an empty one."""
    root = make(tmp_path / "c")
    listed = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/sources/0"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr("k2.checkpoints.scan.os.scandir", refuse)
    assert scan(root).unread == ["sources/0: Permission denied"]


def test_batches_are_timed_by_their_files(tmp_path: Path) -> None:
    """From the plan to the commit, in seconds; a batch in flight has none."""
    root = make(tmp_path / "c", offsets=range(7))
    for batch in range(6):
        touch(root / "offsets" / str(batch), hours=1 + (batch + 1) / 3600)
    assert scan(root).batch_seconds(2) == pytest.approx([5, 6])


def test_memory_does_not_grow_with_files(tmp_path: Path) -> None:
    """Twenty times as many leftovers and states cost no more memory than a few names."""

    def peak(count: int) -> int:
        root = make(tmp_path / f"c{count}")
        for number in range(count):
            write(root / "state" / "0" / str(number % 10) / f"{number}.delta")
            write(root / "state" / "0" / str(number % 10) / f".{number}.delta.00000000-0000-0000-0000-{number:012d}.tmp")
        scan(root)
        tracemalloc.start()
        try:
            assert len(scan(root).temporary.named) == NAMED
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(2000) < peak(100) + 30_000
