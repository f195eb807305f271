"""Checkpoints out of their place and back: whole, each by one rename, into an entry of its own and out of it.

The quarantine lies beside the checkpoints' folder and on its file system; `entries` says what lies there. A checkpoint is whole at its place or whole
in its entry, wherever a process is killed. That nothing writes to a checkpoint is for the caller to see to: no driver of its stream runs, and none can
be started.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from k2.checkpoints.disk import copy_tree, delete_tree, sync, sync_tree
from k2.checkpoints.entries import CHECKPOINT, PART, Entry, Refused, describe, few, hold, locked, new_entry, refuse, refusing, remove_rest, verify, verify_list
from k2.checkpoints.manifest import LIST, Kind, Manifest, Unfit, Why, differences, walk

QUARANTINE = ".quarantine"
FOR = "for"
"""What a manifest calls the entry whose checkpoint takes the place of the one that is put away."""


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
        refuse(f"{checkpoint} is written to: stop its stream first", differences(checkpoint, folder / LIST, content=False))
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
        refuse(wrong, differences(checkpoint if same else part, folder / LIST, content=True))
        part.rename(folder / CHECKPOINT)
    sync(folder)
    return Entry(folder, manifest)


def restore(entry: Entry, target: Path, root: Path, replaced: Why | None = None) -> Manifest:
    """Move a checkpoint back, in one rename, to `target`, right below `root`. `replaced`: why what lies there goes into the quarantine.

    Its entry goes: what is left to be known is in the manifest, which is returned for the audit. Killed, it is done again and goes on; between the two
    renames of an exchange both checkpoints lie in the quarantine. Raises Refused: the target is not free and `replaced` is None, the entry is being
    purged or holds no whole checkpoint, or any file is not what it was; what lay at the target is there again.
    """
    folder, held = entry.folder, entry.checkpoint
    if is_back(entry, target):
        manifest = verify_list(entry)
        with locked(folder):
            sync(target.parent)
            sync(folder)
            remove_rest(folder)
        sync(folder.parent)
        return manifest
    with hold(entry):
        manifest = verify(entry)
        if manifest.kind is Kind.LEFTOVERS:
            raise Refused(f"{folder} holds leftovers and no checkpoint: put them back into {root / manifest.folder}")
        with _free(target, root, entry, replaced):
            with refusing():
                held.rename(target)
            sync(target.parent)
            sync(folder)
            if wrong := few(differences(target, folder / LIST, content=False)):
                target.rename(held)
                raise Refused(f"{held} was changed while it was moved back, so it is in the quarantine again: {wrong}")
        remove_rest(folder)
    sync(folder.parent)
    return manifest


def restore_copy(entry: Entry, target: Path, root: Path, replaced: Why | None = None) -> Manifest:
    """Put a copy of what an entry holds at `target`, in one rename; the entry stays. Refused and done again as `restore` is."""
    part = entry.folder / PART
    with hold(entry):
        try:
            with refusing():
                manifest = verify(entry)
                if _lies_at(entry, target):
                    sync(target.parent)
                    return manifest
                delete_tree(part)
                copy_tree(entry.checkpoint, part)
                sync_tree(part)
                refuse(f"the copy of {entry.checkpoint} is not equal to it", differences(part, entry.folder / LIST, content=True))
            with _free(target, root, entry, replaced), refusing():
                part.rename(target)
        finally:
            delete_tree(part)
        sync(target.parent)
        sync(entry.folder)
    return manifest


def is_back(entry: Entry, target: Path) -> bool:
    """Whether what an entry held is at `target`, and only its rest is left: it was restored, and that was killed."""
    return not entry.purging and not os.path.lexists(entry.checkpoint) and _lies_at(entry, target)


def _lies_at(entry: Entry, target: Path) -> bool:
    """Whether what an entry lists is at `target`, equal in every byte."""
    try:
        verify_list(entry)
        return stat.S_ISDIR(target.lstat().st_mode) and not few(differences(target, entry.folder / LIST, content=True))
    except (Refused, Unfit, OSError):
        return False


@contextlib.contextmanager
def _free(target: Path, root: Path, entry: Entry, replaced: Why | None) -> Iterator[None]:
    """The place into which an entry goes, right below `root`, while nothing is there. What lay there is back when that is refused. Raises Refused."""
    with refusing():
        _refuse_outside(target, root)
    before = None
    if os.path.lexists(target):
        if replaced is None:
            raise Refused(f"{target} exists: put what is there into the quarantine first")
        before = put(target, root, replaced.model_copy(update={"about": {**replaced.about, FOR: entry.folder.name}}))
    try:
        yield
    except Refused:
        if before is not None:
            restore(before, target, root)
        raise


def refuse_misfit(checkpoint: Path, root: Path) -> None:
    """Raises Refused unless `checkpoint` is a folder right below `root`, of readable folders and files alone."""
    with refusing():
        _refuse_outside(checkpoint, root)
        if not stat.S_ISDIR(checkpoint.lstat().st_mode):
            raise Refused(f"{checkpoint} is {'a symbolic link' if checkpoint.is_symlink() else 'no folder'}: name the folder of a checkpoint")
        try:
            for _ in walk(checkpoint):
                pass
        except Unfit as error:
            raise Refused(f"{checkpoint}: {error}") from error


def _refuse_outside(path: Path, root: Path) -> None:
    if path.name in ("", "..") or path.parent.resolve() != root.resolve():
        raise Refused(f"{path} is not right below {root}: name a folder there")
    if not path.name.isprintable():
        raise Refused(f"{os.fspath(path)!r} cannot be written into a manifest: give it a name of letters, digits, - and _")
