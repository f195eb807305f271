"""Where checkpoints lie that were taken out of the way: whole, each in a folder of its own with a manifest, so that they can go back.

An entry is `<folder>-<time>-<unique>/` with `manifest.json`, `files.jsonl` and `checkpoint/`, beside the checkpoints' folder
and on its file system. A checkpoint comes in and goes out by one rename, so it is whole at its place or whole in its entry,
wherever a process is killed: an entry without `checkpoint/` is a rest, which `recover` removes. A purge renames the entry
first, and what bears that name never goes back.

Two processes never work on one entry. That nothing writes to a checkpoint is for the caller to see to: no driver of its
stream runs, and none can be started.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from k2.checkpoints.manifest import LIST, MANIFEST, Kind, Manifest, Unfit, Unreadable, Why, check_list, differences, read_manifest, walk, write_list
from k2.checkpoints.reader import CheckpointUnreadable, read_tail

CHECKPOINT = "checkpoint"
PART = "part"
"""A copy on its way, inside an entry."""
PURGING = ".purging"
QUARANTINE = ".quarantine"
NAMED = 3


class Refused(RuntimeError):
    """It was not done, and the checkpoint is where it was and as it was."""


@dataclass(frozen=True)
class Entry:
    """What lies in the quarantine, or among the backups. `manifest` is None only where `wrong` says why it cannot be read."""

    folder: Path
    manifest: Manifest | None
    wrong: str | None = None
    """What keeps it from going back, and what to do; None when nothing is known to."""

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def purging(self) -> bool:
        return self.folder.name.endswith(PURGING)


def quarantine_of(root: Path) -> Path:
    """Where the checkpoints of the folder `root` are put."""
    return root.with_name(root.name + QUARANTINE)


def put(checkpoint: Path, root: Path, why: Why) -> Entry:
    """Move a checkpoint of the folder `root` into its quarantine, in one rename. Nothing in it is changed.

    Raises Refused: it is no folder right below `root`, holds links or special files, cannot be read, lies on another file
    system than the quarantine, or is written to; or it is to be retired and nobody can say whose it is.
    OSError when it is in the quarantine, but perhaps not durably.
    """
    refuse_misfit(checkpoint, root)
    place = quarantine_of(root)
    with new_entry(place, checkpoint, why) as folder:
        if checkpoint.lstat().st_dev != folder.stat().st_dev:
            raise Refused(f"{checkpoint} lies on another file system than {place}: one rename cannot move it, so put both on one")
        manifest = describe(checkpoint, folder, checkpoint.name, why)
        # What a query wrote into a file that had been hashed already is seen here; the caller sees to what comes after.
        _refuse(f"{checkpoint} is written to: stop its stream first", differences(checkpoint, folder / LIST, content=False))
        checkpoint.rename(folder / CHECKPOINT)
    sync(folder)
    sync(root)
    return Entry(folder, manifest)


def put_copy(checkpoint: Path, root: Path, why: Why) -> Entry:
    """Put a copy of a checkpoint of the folder `root` into its quarantine. Refused as `put` is."""

    def copy(target: Path) -> None:
        copy_tree(checkpoint, target)

    refuse_misfit(checkpoint, root)
    return take_copy(quarantine_of(root), checkpoint, why, copy, same=True)


def take_copy(place: Path, checkpoint: Path, why: Why, copy: Callable[[Path], None], *, same: bool = False) -> Entry:
    """Make an entry in `place` of what `copy` writes to the path that it is given; `same`: it must be equal to the checkpoint.

    It is read again and compared with its manifest before it is an entry. Raises Refused.
    """
    with new_entry(place, checkpoint, why) as folder:
        part = folder / PART
        copy(part)
        sync_tree(part)
        manifest = describe(part, folder, checkpoint.name, why)
        wrong = f"{checkpoint} is written to: stop its stream first" if same else f"the copy of {checkpoint} is not what was written"
        _refuse(wrong, differences(checkpoint if same else part, folder / LIST, content=True))
        part.rename(folder / CHECKPOINT)
    sync(folder)
    return Entry(folder, manifest)


def restore(entry: Entry, target: Path, root: Path) -> Manifest:
    """Move a checkpoint back, in one rename, to `target`, which must be free and right below `root`.

    Its entry goes: what is left to be known is in the manifest, which is returned for the audit. Raises Refused: the target
    is not free, the entry is being purged or holds no whole checkpoint, or any file is not what it was.
    """
    folder, held = entry.folder, entry.checkpoint
    with _held(entry):
        with _refusing():
            _refuse_target(target, root)
            manifest = verify(entry)
            if manifest.kind is Kind.LEFTOVERS:
                raise Refused(f"{folder} holds leftovers and no checkpoint: put them back into {root / manifest.folder}")
            held.rename(target)
        sync(target.parent)
        sync(folder)
        if wrong := _few(differences(target, folder / LIST, content=False)):
            target.rename(held)
            raise Refused(f"{held} was changed while it was moved back, so it is in the quarantine again: {wrong}")
        remove_rest(folder)
    sync(folder.parent)
    return manifest


def restore_copy(entry: Entry, target: Path, root: Path) -> Manifest:
    """Put a copy of what an entry holds at `target`, in one rename; the entry stays. Refused as `restore` is."""
    part = entry.folder / PART
    with _held(entry):
        try:
            with _refusing():
                _refuse_target(target, root)
                manifest = verify(entry)
                _delete(part)
                copy_tree(entry.checkpoint, part)
                sync_tree(part)
                _refuse(f"the copy of {entry.checkpoint} is not equal to it", differences(part, entry.folder / LIST, content=True))
                part.rename(target)
        finally:
            _delete(part)
        sync(target.parent)
        sync(entry.folder)
    return manifest


def verify_list(entry: Entry) -> Manifest:
    """The manifest of an entry, if its list is the one that belongs to it. Raises Refused."""
    with _refusing():
        try:
            manifest = read_manifest(entry.folder)
            check_list(manifest, entry.folder / LIST)
        except Unreadable as error:
            raise Refused(f"{entry.folder}: {error}") from error
    return manifest


def verify(entry: Entry) -> Manifest:
    """Compare every file of an entry with its manifest, by content, and return that. Raises Refused."""
    manifest = verify_list(entry)
    with _refusing():
        _refuse(f"{entry.checkpoint} is not what it was", differences(entry.checkpoint, entry.folder / LIST, content=True))
    return manifest


def purge(entry: Entry, now: datetime, ttl: timedelta) -> None:
    """Delete an entry for good, once it has lain for `ttl`; one whose purge was interrupted is deleted at once. Raises Refused or OSError."""
    if not entry.purging:
        if entry.manifest is None:
            raise Refused(f"{entry.folder}: since when it lies there cannot be known: {entry.wrong}")
        due = entry.manifest.at + ttl
        if now < due:
            raise Refused(f"{entry.folder} is kept until {due.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: purge it then")
    discard(entry)


def discard(entry: Entry) -> None:
    """Delete an entry for good. Interrupted, it is done again. Raises Refused when another process works on it, OSError."""
    with _locked(entry.folder):
        folder = entry.folder if entry.purging else entry.folder.with_name(entry.folder.name + PURGING)
        if not entry.purging:
            entry.folder.rename(folder)
            sync(folder.parent)
        _delete(folder / CHECKPOINT)
        remove_rest(folder)
    sync(folder.parent)


def entries(place: Path) -> list[Entry]:
    """Everything that lies in a quarantine or among backups, by name, which is by checkpoint and time. Raises OSError."""
    try:
        folders = sorted(place.iterdir())
    except FileNotFoundError:
        return []
    return [_read(folder) for folder in folders]


def recover(place: Path) -> list[Path]:
    """Remove what interrupted work left in a quarantine or among backups. Returns what was removed. Raises OSError.

    No `checkpoint/` is ever touched: an entry without one is of a checkpoint that never came in, or is back at its place.
    What another process works on is left to it; a purge goes on when it is asked for again.
    """
    removed: list[Path] = []
    for entry in entries(place):
        part = entry.folder / PART
        if entry.purging or not _is_folder(entry.folder) or (os.path.lexists(entry.checkpoint) and not os.path.lexists(part)):
            continue
        with contextlib.suppress(Refused), _locked(entry.folder):
            if os.path.lexists(part):
                _delete(part)
                removed.append(part)
            if remove_rest(entry.folder):
                removed.append(entry.folder)
    if removed:
        sync(place)
    return removed


def refuse_misfit(checkpoint: Path, root: Path) -> None:
    """Raises Refused unless `checkpoint` is a folder right below `root`, of readable folders and files alone."""
    with _refusing():
        _refuse_outside(checkpoint, root)
        if not stat.S_ISDIR(checkpoint.lstat().st_mode):
            raise Refused(f"{checkpoint} is {'a symbolic link' if checkpoint.is_symlink() else 'no folder'}: name the folder of a checkpoint")
        try:
            for _ in walk(checkpoint):
                pass
        except Unfit as error:
            raise Refused(f"{checkpoint}: {error}") from error


def _refuse_target(target: Path, root: Path) -> None:
    """Raises Refused unless a checkpoint can be put at `target`, right below `root`."""
    _refuse_outside(target, root)
    if os.path.lexists(target):
        raise Refused(f"{target} exists: put what is there into the quarantine first")


def copy_tree(tree: Path, target: Path) -> None:
    """Copy folders and files, with the files' times. Raises Unfit or OSError."""
    target.mkdir()
    for path, is_folder in walk(tree):
        if is_folder:
            (target / path).mkdir()
        else:
            shutil.copy2(tree / path, target / path, follow_symlinks=False)


def sync(folder: Path) -> None:
    """Make durable what was created, renamed or removed in a folder."""
    _sync(folder, os.O_DIRECTORY)


def sync_tree(tree: Path) -> None:
    """Make a copy durable, its files' content too."""
    sync(tree)
    for path, is_folder in walk(tree):
        _sync(tree / path, os.O_DIRECTORY if is_folder else 0)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_outside(path: Path, root: Path) -> None:
    if path.name in ("", "..") or path.parent.resolve() != root.resolve():
        raise Refused(f"{path} is not right below {root}: name a folder there")
    if not path.name.isprintable():
        raise Refused(f"{os.fspath(path)!r} cannot be written into a manifest: give it a name of letters, digits, - and _")


def _refuse(what: str, wrong: Iterable[str]) -> None:
    if found := _few(wrong):
        raise Refused(f"{what}: {found}")


def _few(wrong: Iterable[str]) -> str:
    found = list(islice(wrong, NAMED + 1))
    return "; ".join(found[:NAMED]) + ("; and more" if len(found) > NAMED else "")


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What goes wrong before anything was moved is a refusal."""
    try:
        yield
    except (Unfit, CheckpointUnreadable) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"{error.strerror}: {error.filename}" if error.filename else str(error)) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an entry against other processes. One that is killed holds nothing any more. Raises Refused."""
    with _refusing():
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{folder}: another process works on it: wait until it is done") from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _held(entry: Entry) -> Iterator[None]:
    """Hold an entry that can go back. Raises Refused."""
    if entry.purging:
        raise Refused(f"{entry.folder} is being purged: what is left of it never goes back")
    with _locked(entry.folder):
        if not _is_folder(entry.checkpoint):
            raise Refused(f"{entry.folder} holds no checkpoint: {_REST}")
        yield


@contextlib.contextmanager
def new_entry(place: Path, checkpoint: Path, why: Why) -> Iterator[Path]:
    """A folder for an entry, removed again when what is done in it fails. Raises Refused."""
    with _refusing():
        folder = place / f"{checkpoint.name}-{why.at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        _make(place)
        folder.mkdir()
    with _locked(folder):
        try:
            with _refusing():
                yield folder
        except BaseException:
            remove_rest(folder)
            raise


def _make(place: Path) -> None:
    """Make a folder and those above it, durably."""
    if not place.is_dir():
        _make(place.parent)
        with contextlib.suppress(FileExistsError):
            place.mkdir()
        sync(place.parent)


def describe(tree: Path, folder: Path, name: str, why: Why, paths: Iterable[str] | None = None) -> Manifest:
    """Write the list of a tree, or of these of its files, and its manifest into an entry, durably. Raises Refused, Unfit or OSError."""
    listed = write_list(tree, folder / LIST, paths)
    manifest = Manifest(
        **dict(why),
        **_tail(tree, why),
        id=folder.name,
        folder=name,
        files=listed.files,
        folders=listed.folders,
        bytes=listed.bytes,
        list_sha256=listed.sha256,
    )
    manifest.save(folder)
    sync(folder)
    sync(folder.parent)
    return manifest


def _tail(tree: Path, why: Why) -> dict[str, Any]:
    try:
        tail = read_tail(tree)
    except CheckpointUnreadable as error:
        if why.kind is Kind.RETIRED:
            raise Refused(f"{error}: whose it is must be known before it is retired") from error
        return {"unreadable": error.reason}
    if why.kind is Kind.RETIRED and tail.query_id is None and tail.last_offset_batch is not None:
        raise Refused(f"checkpoint {tree}: metadata is missing though batches exist: whose it is must be known before it is retired")
    return {"query_id": tail.query_id, "last_planned": tail.last_offset_batch, "last_committed": tail.last_commit_batch}


_REST = "interrupted work left it, and `recover` removes it, but for what was put into it by hand"


def _read(folder: Path) -> Entry:
    if not _is_folder(folder):
        return Entry(folder, None, "it is no folder, and nothing of the quarantine's: move it elsewhere")
    try:
        manifest, wrong = read_manifest(folder), None
    except Unreadable as error:
        manifest, wrong = None, f"{error}: look at its checkpoint, and move that by hand"
    if folder.name.endswith(PURGING):
        wrong = "it is being purged: if no process does that now, purge it again"
    elif not _is_folder(folder / CHECKPOINT):
        wrong = f"it holds no checkpoint: {_REST}"
    elif manifest is not None and manifest.id != folder.name:
        wrong = f"its manifest is that of {manifest.id}: give the folder its name back"
    return Entry(folder, manifest, wrong)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def remove_rest(folder: Path) -> bool:
    """Remove an entry if it holds no checkpoint, and say whether it is gone: whatever was put into it by hand keeps it there."""
    if os.path.lexists(folder / CHECKPOINT):
        return False
    _delete(folder / PART)
    for name in (LIST, MANIFEST):
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass  # a recovery came between the making of the entry and its lock
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _delete(tree: Path) -> None:
    """Remove a folder with all that is in it, if it is there, without listing any folder whole."""
    if not os.path.lexists(tree):
        return
    folders = [os.fspath(tree)]
    for folder in folders:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - a million times
    for folder in reversed(folders):
        os.rmdir(folder)  # noqa: PTH106
