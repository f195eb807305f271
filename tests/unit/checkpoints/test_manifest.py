"""What a checkpoint consists of, and what is seen of every change."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from k2.checkpoints import manifest
from k2.checkpoints.manifest import LIST, Kind, Manifest, Unfit, Unreadable, Why, check_list, differences, read_list, read_manifest, walk, write_list

AT = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
WHY = Why(kind=Kind.RETIRED, who="dba", why="not wanted", at=AT, about={"source": {"topic": "trades"}, "floors": [1, None]})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name, text in {"metadata": '{"id":"q"}', "offsets/0": "v1\n{}", "offsets/.0.crc": "crc", "sources/0/0": "", "state/0/0/1.delta": "d"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "state" / "0" / "1").mkdir()
    return folder


def write(folder: Path, **changed: object) -> Manifest:
    """A manifest of an empty list, changed behind its back."""
    (folder / LIST).write_bytes(b"")
    Manifest(**dict(WHY), id="x-1", folder="x", query_id="q", files=0, folders=0, bytes=0, list_sha256="0").save(folder)
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return read_manifest(folder)


def test_every_file_and_folder_is_listed(tree: Path, tmp_path: Path) -> None:
    """With size, hash and time, also empty ones; the sums and the hash of the list are right."""
    listed = write_list(tree, tmp_path / LIST)
    assert (listed.files, listed.folders, listed.bytes) == (5, 7, 10 + 5 + 3 + 0 + 1)
    items = {item.path: item for item in read_list(tmp_path / LIST)}
    assert sorted(items) == sorted(str(p.relative_to(tree)) for p in tree.rglob("*"))
    empty = items["sources/0/0"]
    assert (empty.size, empty.mtime_ns) == (0, (tree / "sources/0/0").stat().st_mtime_ns)
    assert empty.sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert items["state/0/1"].size is None
    assert list(differences(tree, tmp_path / LIST, content=True)) == []


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file gone": (lambda t: (t / "metadata").unlink(), "metadata is missing"),
    "a folder gone": (lambda t: (t / "state/0/1").rmdir(), "state/0/1 is missing"),
    "a file more": (lambda t: (t / "offsets/1").write_text(""), "offsets/1 was not there"),
    "an empty folder more": (lambda t: (t / "commits").mkdir(), "commits was not there"),
    "one gone and one more": (lambda t: (t / "offsets/0").rename(t / "offsets/9"), "offsets/0 is missing; offsets/9 was not there"),
    "longer": (lambda t: (t / "metadata").write_text('{"id":"qq"}'), "metadata has 11 bytes, and had 10"),
    "other bytes, same size and time": (lambda t: same_time(t / "metadata", '{"id":"p"}'), "metadata has another content"),
    "touched": (lambda t: os.utime(t / "metadata", ns=(0, 1)), "metadata was written at 1970-01-01 00:00:00.000000001 UTC"),
    "a folder for a file": (lambda t: ((t / "metadata").unlink(), (t / "metadata").mkdir()), "metadata is no file"),
    "a file for a folder": (lambda t: ((t / "state/0/1").rmdir(), (t / "state/0/1").write_text("")), "state/0/1 is no folder"),
    "a link for a file": (lambda t: ((t / "metadata").unlink(), (t / "metadata").symlink_to("offsets/0")), "metadata is no file; metadata is a symbolic link"),
    "a link more": (lambda t: (t / "loop").symlink_to("."), "loop is a symbolic link"),
    "a pipe for a file": (lambda t: ((t / "metadata").unlink(), os.mkfifo(t / "metadata")), "metadata is no file; metadata is neither a file nor a folder"),
}


def same_time(path: Path, text: str) -> None:
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=times)


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen_and_named(tree: Path, tmp_path: Path, change: str) -> None:
    write_list(tree, tmp_path / LIST)
    make, said = CHANGES[change]
    make(tree)
    assert "; ".join(differences(tree, tmp_path / LIST, content=True)).startswith(said)


def test_without_content_only_what_needs_reading_is_passed_by(tree: Path, tmp_path: Path) -> None:
    write_list(tree, tmp_path / LIST)
    same_time(tree / "metadata", '{"id":"p"}')
    assert list(differences(tree, tmp_path / LIST, content=False)) == []
    (tree / "metadata").write_text('{"id":"q"}')
    assert len(list(differences(tree, tmp_path / LIST, content=False))) == 1


def test_what_is_not_listed_is_found_in_a_large_folder_too(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes more than one pass over the list."""
    monkeypatch.setattr(manifest, "NAMES_AT_ONCE", 2)
    write_list(tree, tmp_path / LIST)
    for name in ("a", "z"):
        (tree / "offsets" / name).write_text("")
    assert sorted(differences(tree, tmp_path / LIST, content=False)) == ["offsets/a was not there", "offsets/z was not there"]


@pytest.mark.parametrize("name", ["line\nfeed", 'quote"\\', "é\u2028😀", "\udcff\udc80not utf-8", " ", "..."])
def test_odd_names_are_kept(tree: Path, tmp_path: Path, name: str) -> None:
    (tree / name).write_text("x")
    write_list(tree, tmp_path / LIST)
    assert name in [item.path for item in read_list(tmp_path / LIST)]
    assert list(differences(tree, tmp_path / LIST, content=True)) == []


def test_what_no_checkpoint_holds_is_named_and_not_followed(tree: Path) -> None:
    (tree / "state" / "loop").symlink_to("..")
    with pytest.raises(Unfit, match="state/loop is a symbolic link: remove it"):
        list(walk(tree))
    (tree / "state" / "loop").unlink()
    os.mkfifo(tree / "state" / "pipe")
    with pytest.raises(Unfit, match="state/pipe is neither a file nor a folder"):
        list(walk(tree))


def test_a_file_that_is_written_to_while_it_is_read_has_no_hash(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "metadata").write_text("x" * manifest.BLOCK)
    read = os.read

    def meanwhile(descriptor: int, size: int) -> bytes:
        block = read(descriptor, size)
        if len(block) == manifest.BLOCK:
            with (tree / "metadata").open("a") as file:
                file.write("more")
        return block

    monkeypatch.setattr(os, "read", meanwhile)
    with pytest.raises(Unfit, match="metadata was written to while it was read: stop what writes it first"):
        write_list(tree, tmp_path / LIST)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = write(tmp_path)
    assert (found.kind, found.who, found.why, found.at, found.about) == (WHY.kind, WHY.who, WHY.why, WHY.at, WHY.about)
    assert (found.version, found.id, found.query_id, found.last_planned, found.unreadable) == (1, "x-1", "q", None, None)
    with pytest.raises(FileExistsError):
        found.save(tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "manifest.json, version: Input should be 1, and it is '2'"),
        ({"at": "yesterday"}, "manifest.json, at: .*and it is 'yesterday'"),
        ({"at": "2026-11-22T02:30:00"}, "manifest.json, at: Input should have timezone info"),
        ({"kind": "lost"}, "manifest.json, kind: Input should be 'retired', .*and it is 'lost'"),
        ({"more": 1}, "manifest.json, more: Extra inputs are not permitted"),
        ({"files": None}, "manifest.json, files: "),
    ],
)
def test_a_manifest_that_says_something_else_names_the_field(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        write(tmp_path, **changed)


def test_a_manifest_that_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"manifest.json: No such file"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b'{"version": 1, "kin\xff')
    with pytest.raises(Unreadable, match="manifest.json, its text: Invalid JSON"):
        read_manifest(tmp_path)


def test_a_list_that_is_another_one_is_compared_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="files.jsonl is not what manifest.json says"):
        check_list(write(tmp_path), tmp_path / LIST)


def test_a_time_without_zone_is_not_taken() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        Why(kind=Kind.RETIRED, who="dba", why="x", at=AT.replace(tzinfo=None))


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """Links to one file: the names of 2,000 alone would take more."""
    tree = tmp_path / "tree"
    tree.mkdir()
    first = tree / "0"
    first.write_text("x")
    for number in range(1, 2_000):
        (tree / str(number)).hardlink_to(first)
    tracemalloc.start()
    try:
        listed = write_list(tree, tmp_path / LIST)
        assert list(differences(tree, tmp_path / LIST, content=True)) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert listed.files == 2_000 and peak < 150_000
