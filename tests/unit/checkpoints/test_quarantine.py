"""Checkpoints out of the way and back: whole, byte by byte, or refused with nothing touched."""

from __future__ import annotations

import json
import os
import resource
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.checkpoints.entries import CHECKPOINT, Entry, Refused, entries, verify
from k2.checkpoints.manifest import LIST, MANIFEST, Kind, Why, read_list
from k2.checkpoints.quarantine import put, put_copy, quarantine_of, restore

from .folders import content

AT = datetime(2026, 11, 22, 2, 30, 5, tzinfo=UTC)
TTL = timedelta(days=30)
QUERY = "0c1b7cf6-6e0f-4f6c-9a3e-3d5f2c1b0a99"
LOOP, PIPE = "a symbolic link", "neither a file nor a folder"


def why(kind: Kind = Kind.RETIRED) -> Why:
    return Why(kind=kind, who="dba", why="nobody reads it", at=AT, about={"reads": "bronze_x", "snapshot": 7})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The checkpoints' folder, with one checkpoint: batches 0 to 2 planned, 0 and 1 committed."""
    make(tmp_path / "checkpoints" / "bronze-x")
    return tmp_path / "checkpoints"


def make(folder: Path, planned: int = 3) -> Path:
    texts = {"metadata": json.dumps({"id": QUERY}), ".metadata.crc": "crc", "sources/0/0": "v1\n{}"}
    texts |= {f"offsets/{n}": f'v1\n{{}}\n{{"topic":{{"0":{n}}}}}' for n in range(planned)} | {f"commits/{n}": "v1\n{}" for n in range(2)}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "state" / "empty").mkdir(parents=True)
    return folder


def unprivileged(work: Callable[[], object]) -> str:
    """What `work` is refused with by a process that may not read everything, as root may."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            work()
        except Refused as error:
            said = str(error)
        finally:
            os.write(there, said.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(there)
    with os.fdopen(here) as file:
        return file.read()


def test_a_checkpoint_goes_and_comes_back_as_it_was(root: Path) -> None:
    """The manifest says whose it is, who wanted it gone and why, and what the caller must know later; then nothing is left of the entry."""
    before = content(root / "bronze-x")
    entry = put(root / "bronze-x", root, why())
    assert not (root / "bronze-x").exists() and content(entry.checkpoint) == before
    assert entry.folder.parent == root.with_name("checkpoints.quarantine") and entry.folder.name.startswith("bronze-x-20261122T023005Z-")
    (found,) = entries(quarantine_of(root))
    assert found == entry and found.wrong is None and not found.purging
    m = found.manifest
    assert m is not None
    assert (m.id, m.folder, m.kind, m.who, m.why, m.at) == (entry.folder.name, "bronze-x", Kind.RETIRED, "dba", "nobody reads it", AT)
    assert (m.query_id, m.last_planned, m.last_committed, m.unreadable) == (QUERY, 2, 1, None)
    assert (m.files, m.bytes, m.about) == (8, sum(len(f[0]) for f in before.values() if f), {"reads": "bronze_x", "snapshot": 7})
    assert restore(found, root / "bronze-x", root) == m
    assert content(root / "bronze-x") == before and entries(quarantine_of(root)) == []


def test_it_may_go_back_under_another_name(root: Path) -> None:
    before = content(root / "bronze-x")
    restore(put(root / "bronze-x", root, why()), root / "bronze-y", root)
    assert content(root / "bronze-y") == before


def test_one_checkpoint_may_lie_there_more_than_once(root: Path) -> None:
    """Put away in the same second, too."""
    first = put(root / "bronze-x", root, why())
    make(root / "bronze-x")
    second = put(root / "bronze-x", root, why())
    assert [e.folder for e in entries(quarantine_of(root))] == sorted([first.folder, second.folder])


def test_a_copy_leaves_the_checkpoint_where_it_is(root: Path) -> None:
    before = content(root / "bronze-x")
    entry = put_copy(root / "bronze-x", root, why(Kind.ADOPTED))
    assert content(root / "bronze-x") == before == content(entry.checkpoint)
    assert verify(entry) == entry.manifest and entries(quarantine_of(root)) == [entry]


MISFITS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "not there": (lambda r: r / "bronze-y", "No such file or directory: .*bronze-y"),
    "a file": (lambda r: written(r / "file"), "file is no folder: name the folder of a checkpoint"),
    "a link": (lambda r: linked(r / "link", r / "bronze-x"), "link is a symbolic link: name the folder"),
    "a link to itself": (lambda r: linked(r / "loop", r / "loop"), "loop is a symbolic link"),
    "the root": (lambda r: r, "checkpoints is not right below .*: name a folder there"),
    "outside": (lambda r: make(r.with_name("elsewhere") / "bronze-x"), "elsewhere/bronze-x is not right below"),
    "outside by dots": (lambda r: r / ".." / r.name / "..", "is not right below"),
    "a part of one": (lambda r: r / "bronze-x" / "offsets", "offsets is not right below"),
    "outside by a link": (lambda r: linked(r / "way", make(r.with_name("elsewhere") / "x").parent) / "x", "way/x is not right below"),
    "with a link": (lambda r: linked(r / "bronze-x" / "state" / "l", r / "bronze-x" / "metadata").parent.parent, f"state/l is {LOOP}: remove it"),
    "with a loop": (lambda r: linked(r / "bronze-x" / "state" / "l", r / "bronze-x").parent.parent, f"state/l is {LOOP}"),
    "with a pipe": (lambda r: os.mkfifo(r / "bronze-x" / "metadata.pipe") or r / "bronze-x", f"metadata.pipe is {PIPE}"),
    "an odd name": (lambda r: make(r / "bronze\n"), r"bronze\\n' cannot be written into a manifest: give it a name"),
    "a long name": (lambda r: make(r / ("x" * 250)), "File name too long"),
}


def written(path: Path) -> Path:
    path.write_text("x")
    return path


def linked(path: Path, to: Path) -> Path:
    path.symlink_to(to)
    return path


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("act", [put, put_copy])
def test_what_is_no_checkpoint_here_is_refused_and_not_touched(root: Path, misfit: str, act: Callable[[Path, Path, Why], Entry]) -> None:
    make_it, said = MISFITS[misfit]
    path = make_it(root)
    before = content(root.parent)
    with pytest.raises(Refused, match=said):
        act(path, root, why(Kind.ADOPTED))
    assert content(root.parent) in (before, before | {"checkpoints.quarantine": None})


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "newer format": (lambda c: (c / "offsets" / "1").write_text("v2\n{}"), "offsets/1 is of log version 'v2'"),
    "half copied": (lambda c: shutil.rmtree(c / "offsets"), "its files changed during"),
    "no identity": (lambda c: (c / "metadata").unlink(), "metadata is missing though batches exist"),
    "torn identity": (lambda c: (c / "metadata").write_text('{"id'), "metadata is"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_retired_but_may_make_way(root: Path, damage: str) -> None:
    """Nobody can say that it is what was to be retired. What is replaced may be damaged: the manifest says how."""
    make_it, said = DAMAGES[damage]
    make_it(root / "bronze-x")
    before = content(root)
    with pytest.raises(Refused, match=said):
        put(root / "bronze-x", root, why())
    assert content(root) == before and entries(quarantine_of(root)) == []
    entry = put(root / "bronze-x", root, why(Kind.REPLACED))
    assert entry.manifest is not None and entry.manifest.query_id is None
    assert (entry.manifest.unreadable is None) == (damage == "no identity")
    restore(entry, root / "bronze-x", root)
    assert content(root) == before


def test_a_checkpoint_that_never_began_can_be_retired(root: Path) -> None:
    (root / "new").mkdir()
    entry = put(root / "new", root, why())
    assert entry.manifest is not None and (entry.manifest.files, entry.manifest.query_id) == (0, None)
    restore(entry, root / "new", root)
    assert content(root / "new") == {}


@pytest.mark.parametrize("change", ["a file more", "a file changed", "a file gone"])
def test_a_checkpoint_that_is_written_to_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """What changes after it was hashed is seen before anything moves."""
    fsync, done = os.fsync, []

    def meanwhile(descriptor: int) -> None:
        if not done and Path(f"/proc/self/fd/{descriptor}").readlink().name == LIST:
            done.append(change)
            offsets = root / "bronze-x" / "offsets"
            {"a file more": (offsets / "3").touch, "a file changed": (offsets / "2").touch, "a file gone": (offsets / "0").unlink}[change]()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(Refused, match="bronze-x is written to: stop its stream first: offsets/"):
        put(root / "bronze-x", root, why())
    assert done and (root / "bronze-x" / "metadata").exists() and entries(quarantine_of(root)) == []


@pytest.mark.parametrize("name", ["offsets", "offsets/1"])
def test_what_cannot_be_read_is_refused(name: str) -> None:
    """A folder that cannot be listed, a file that cannot be opened."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        checkpoint = make(base / "checkpoints" / "bronze-x")
        for path in (base, base / "checkpoints"):
            path.chmod(0o777)
        (checkpoint / name).chmod(0)
        said = unprivileged(lambda: put(checkpoint, base / "checkpoints", why(Kind.ADOPTED)))
        assert said == f"Permission denied: {checkpoint / name}{'/' if name == 'offsets' else ''}"
        (checkpoint / name).chmod(0o755)
        assert len(content(checkpoint)) == 14 and entries(quarantine_of(base / "checkpoints")) == []


def test_a_full_disk_is_a_refusal(root: Path) -> None:
    """The list does not fit: its rest is gone again."""
    before = content(root)

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        put(root / "bronze-x", root, why())

    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            try:
                small()
            except Refused as error:
                os.write(there, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(there)
    with os.fdopen(here) as file:
        assert "File too large" in file.read()
    assert content(root) == before and entries(quarantine_of(root)) == []


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")
def test_another_file_system_is_refused(root: Path) -> None:
    """One rename could not move it, and a copy could be cut short."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        quarantine_of(root).symlink_to(other)
        before = content(root)
        with pytest.raises(Refused, match="lies on another file system than .*quarantine: .*put both on one"):
            put(root / "bronze-x", root, why())
        assert content(root) == before and os.listdir(other) == []  # noqa: PTH208


def test_a_copy_keeps_the_modes_of_folders_and_files(root: Path) -> None:
    """A driver of another user may write into it where it could before."""
    checkpoint = root / "bronze-x"
    checkpoint.chmod(0o2770)
    (checkpoint / "offsets").chmod(0o2775)
    (checkpoint / "offsets" / "2").chmod(0o664)
    entry = put_copy(checkpoint, root, why())
    modes = {path.relative_to(checkpoint): path.stat().st_mode for path in (checkpoint, *checkpoint.rglob("*"))}
    assert {path.relative_to(entry.checkpoint): path.stat().st_mode for path in (entry.checkpoint, *entry.checkpoint.rglob("*"))} == modes


def test_nothing_goes_back_onto_something(root: Path) -> None:
    entry = put(root / "bronze-x", root, why())
    before = content(entry.folder)
    targets = {
        "bronze-y exists: put what is there into the quarantine first": make(root / "bronze-y"),
        "link exists": linked(root / "link", root / "nowhere"),
        "is not right below .*: name a folder there": root.with_name("elsewhere"),
    }
    for said, target in targets.items():
        with pytest.raises(Refused, match=said):
            restore(entry, target, root)
    assert content(entry.folder) == before


def test_one_takes_the_place_of_another(root: Path) -> None:
    """If it is said why: what lay there is held then, and named with what it made way for. What is refused moves neither."""
    entry, instead = put(root / "bronze-x", root, why()), why(Kind.REPLACED)
    old, new = content(entry.checkpoint), content(make(root / "bronze-x", planned=9))
    damaged = entry.checkpoint / "offsets" / "2"
    text = damaged.read_text()
    damaged.write_text("torn")
    with pytest.raises(Refused, match="is not what it was"):
        restore(entry, root / "bronze-x", root, instead)
    assert content(root / "bronze-x") == new and entries(quarantine_of(root)) == [entry]
    damaged.write_text(text)
    os.utime(damaged, ns=(0, old["offsets/2"][1]))
    restore(entry, root / "bronze-x", root, instead)
    (held,) = entries(quarantine_of(root))
    assert content(root / "bronze-x") == old and content(held.checkpoint) == new
    assert held.manifest is not None and held.manifest.about == instead.about | {"for": entry.folder.name}


def test_what_was_moved_back_and_not_told_is_only_tidied_up(root: Path) -> None:
    """If it is equal in every byte. Otherwise what is at the place is somebody else's, and what is left of the entry stays."""
    entry, live = put(root / "bronze-x", root, why()), root / "bronze-x"
    before = content(entry.checkpoint)
    entry.checkpoint.rename(live)
    changed = live / "offsets" / "2"
    text, times = changed.read_bytes(), (0, changed.stat().st_mtime_ns)
    changed.write_bytes(text.swapcase())
    os.utime(changed, ns=times)
    for instead in (None, why(Kind.REPLACED)):
        with pytest.raises(Refused, match="holds no checkpoint: interrupted work left it"):
            restore(entry, live, root, instead)
    changed.write_bytes(text)
    os.utime(changed, ns=times)
    assert [e.folder for e in entries(quarantine_of(root))] == [entry.folder] and content(live) == before
    assert restore(entry, live, root, why(Kind.REPLACED)) == entry.manifest
    assert content(live) == before and entries(quarantine_of(root)) == []


def test_a_copy_of_what_is_at_its_place_is_no_rest(root: Path) -> None:
    """It goes back only where something makes way, as any other."""
    entry, live = put_copy(root / "bronze-x", root, why(Kind.ADOPTED)), root / "bronze-x"
    with pytest.raises(Refused, match="bronze-x exists: put what is there into the quarantine first"):
        restore(entry, live, root)
    before = content(live)
    restore(entry, live, root, why(Kind.REPLACED))
    (held,) = entries(quarantine_of(root))
    assert content(live) == before == content(held.checkpoint) and held.manifest is not None and held.manifest.kind is Kind.REPLACED


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (lambda e: (e / CHECKPOINT / "offsets" / "2").write_text("v1\n{}\n" + '{"topic":{"0":9}}'), "offsets/2 has another content"),
    "gone": (lambda e: (e / CHECKPOINT / "offsets" / "2").unlink(), "offsets/2 is missing"),
    "more": (lambda e: (e / CHECKPOINT / "offsets" / "3").touch(), "offsets/3 was not there"),
    "many": (lambda e: shutil.rmtree(e / CHECKPOINT / "offsets"), "; and more$"),
    "list": (lambda e: (e / LIST).write_text(""), "files.jsonl is not what manifest.json says"),
    "no list": (lambda e: (e / LIST).unlink(), "No such file or directory: .*files.jsonl"),
    "manifest": (lambda e: (e / MANIFEST).write_text("{}"), "manifest.json, kind: Field required"),
    "no checkpoint": (lambda e: shutil.rmtree(e / CHECKPOINT), "holds no checkpoint: interrupted work left it"),
    "a link": (lambda e: ((e / CHECKPOINT).rename(e.parent.with_name("far")), linked(e / CHECKPOINT, e.parent.with_name("far"))), "holds no checkpoint"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_as_it_was_does_not_go_back(root: Path, change: str) -> None:
    """And stays as it was found."""
    entry = put(root / "bronze-x", root, why())
    make_it, said = CHANGES[change]
    make_it(entry.folder)
    before = content(root.parent)
    with pytest.raises(Refused, match=said):
        restore(entry, root / "bronze-x", root)
    assert content(root.parent) == before


def test_leftovers_are_no_checkpoint(root: Path) -> None:
    """They belong into one, and not into its place."""
    entry = put(root / "bronze-x", root, why(Kind.LEFTOVERS))
    with pytest.raises(Refused, match="holds leftovers and no checkpoint: put them back into .*checkpoints/bronze-x"):
        restore(entry, root / "bronze-y", root)
    assert verify(entry) == entry.manifest and not (root / "bronze-y").exists()


def test_what_changes_on_the_way_back_is_taken_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that is started by somebody as soon as its folder is there: it has not got what was verified."""
    entry = put(root / "bronze-x", root, why())
    rename = Path.rename

    def meanwhile(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if target == root / "bronze-x":
            (target / "offsets" / "3").touch()
        return moved

    monkeypatch.setattr(Path, "rename", meanwhile)
    with pytest.raises(Refused, match="was changed while it was moved back, so it is in the quarantine again: offsets/3 was not there"):
        restore(entry, root / "bronze-x", root)
    assert not (root / "bronze-x").exists() and (entry.checkpoint / "offsets" / "3").exists()


names = st.binary(min_size=1, max_size=30).filter(lambda b: not {0, 0x2F} & set(b) and b not in (b".", b"..")).map(os.fsdecode)
nice_names = st.sampled_from(["metadata", ".metadata.crc", "0", ".0.crc", "1", "offsets", "état", "a b", "10.compact"])
files = st.tuples(st.binary(max_size=200), st.integers(0, 2**62))
trees = st.recursive(files | st.none(), lambda inner: st.dictionaries(names | nice_names, inner, max_size=5), max_leaves=12)
Tree = tuple[bytes, int] | dict[str, "Tree"] | None


def build(folder: Path, tree: Tree) -> None:
    """None is an empty folder."""
    folder.mkdir(parents=True)
    for name, inner in (tree if isinstance(tree, dict) else {}).items():
        if isinstance(inner, tuple):
            (folder / name).write_bytes(inner[0])
            os.utime(folder / name, ns=(inner[1], inner[1]))
        else:
            build(folder / name, inner)


@given(st.dictionaries(names | nice_names, trees, max_size=6), st.data())
@settings(max_examples=30, deadline=None)
def test_any_tree_goes_and_comes_back_and_any_change_is_seen(tree: dict[str, Tree], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkpoints"
        build(root / "x", tree)
        before = content(root / "x")
        copy = put_copy(root / "x", root, why(Kind.ADOPTED))
        moved = put(root / "x", root, why(Kind.ADOPTED))
        assert content(copy.checkpoint) == content(moved.checkpoint) == before
        assert sorted(item.path for item in read_list(moved.folder / LIST)) == sorted(before)

        if before:
            path = moved.checkpoint / data.draw(st.sampled_from(sorted(before)))
            if path.is_dir():
                change = data.draw(st.sampled_from([lambda: shutil.rmtree(path), (path / "one more").touch]))
            else:
                flipped = bytes(b ^ 1 for b in path.read_bytes()) or b"x"
                times = path.stat().st_atime_ns, path.stat().st_mtime_ns
                change = data.draw(
                    st.sampled_from([path.unlink, lambda: path.write_bytes(flipped) and os.utime(path, ns=times), lambda: os.utime(path, ns=(7, 7))])
                )
            change()
            if content(moved.checkpoint) != before:
                with pytest.raises(Refused, match="is not what it was"):
                    restore(moved, root / "x", root)
                assert not (root / "x").exists()
            moved = copy
        restore(moved, root / "x", root)
        assert content(root / "x") == before
