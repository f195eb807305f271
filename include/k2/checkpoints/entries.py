"""What lies outside the checkpoints' folder, in the quarantine and among the backups: made, listed, proven, tidied up, and deleted for good.

An entry is `<folder>-<time>-<unique>/` with `manifest.json`, `files.jsonl` and `checkpoint/`. One without `checkpoint/` is a rest, which `recover`
removes. A purge renames the entry first, and what bears that name never goes back. Two processes never work on one entry.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from k2.checkpoints.disk import delete_tree, make_folder, sync
from k2.checkpoints.manifest import LIST, MANIFEST, Kind, Manifest, Unfit, Unreadable, Why, check_list, differences, read_manifest, write_list
from k2.checkpoints.reader import CheckpointUnreadable, read_tail

CHECKPOINT = "checkpoint"
PART = "part"
"""A copy on its way, inside an entry."""
PURGING = ".purging"
NAMED = 3
_REST = "interrupted work left it, and `recover` removes it, but for what was put into it by hand"


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


def entries(place: Path) -> list[Entry]:
    """Everything that lies in a quarantine or among backups, by name, which is by checkpoint and time. Raises OSError."""
    try:
        folders = sorted(place.iterdir())
    except FileNotFoundError:
        return []
    return [_read(folder) for folder in folders]


@contextlib.contextmanager
def new_entry(place: Path, checkpoint: Path, why: Why) -> Iterator[Path]:
    """A folder for an entry, removed again when what is done in it fails. Raises Refused."""
    with refusing():
        folder = place / f"{checkpoint.name}-{why.at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        make_folder(place)
        folder.mkdir()
    with locked(folder):
        try:
            with refusing():
                yield folder
        except BaseException:
            remove_rest(folder)
            raise


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


def verify_list(entry: Entry) -> Manifest:
    """The manifest of an entry, if its list is the one that belongs to it. Raises Refused."""
    with refusing():
        try:
            manifest = read_manifest(entry.folder)
            check_list(manifest, entry.folder / LIST)
        except Unreadable as error:
            raise Refused(f"{entry.folder}: {error}") from error
    return manifest


def verify(entry: Entry) -> Manifest:
    """Compare every file of an entry with its manifest, by content, and return that. Raises Refused."""
    manifest = verify_list(entry)
    with refusing():
        refuse(f"{entry.checkpoint} is not what it was", differences(entry.checkpoint, entry.folder / LIST, content=True))
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
    with locked(entry.folder):
        folder = entry.folder if entry.purging else entry.folder.with_name(entry.folder.name + PURGING)
        if not entry.purging:
            entry.folder.rename(folder)
            sync(folder.parent)
        delete_tree(folder / CHECKPOINT)
        remove_rest(folder)
    sync(folder.parent)


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
        with contextlib.suppress(Refused), locked(entry.folder):
            if os.path.lexists(part):
                delete_tree(part)
                removed.append(part)
            if remove_rest(entry.folder):
                removed.append(entry.folder)
    if removed:
        sync(place)
    return removed


def remove_rest(folder: Path) -> bool:
    """Remove an entry if it holds no checkpoint, and say whether it is gone: whatever was put into it by hand keeps it there."""
    if os.path.lexists(folder / CHECKPOINT):
        return False
    delete_tree(folder / PART)
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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an entry against other processes. One that is killed holds nothing any more. Raises Refused."""
    with refusing():
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
def hold(entry: Entry) -> Iterator[None]:
    """Hold an entry that can go back. Raises Refused."""
    if entry.purging:
        raise Refused(f"{entry.folder} is being purged: what is left of it never goes back")
    with locked(entry.folder):
        if not _is_folder(entry.checkpoint):
            raise Refused(f"{entry.folder} holds no checkpoint: {_REST}")
        yield


def refuse(what: str, wrong: Iterable[str]) -> None:
    """Raises Refused when anything is wrong."""
    if found := few(wrong):
        raise Refused(f"{what}: {found}")


def few(wrong: Iterable[str]) -> str:
    """The first of what is wrong, in words; empty when nothing is."""
    found = list(islice(wrong, NAMED + 1))
    return "; ".join(found[:NAMED]) + ("; and more" if len(found) > NAMED else "")


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """What goes wrong before anything was moved is a refusal."""
    try:
        yield
    except (Unfit, CheckpointUnreadable) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"{error.strerror}: {error.filename}" if error.filename else str(error)) from error
