"""Folders on the disk: made, copied and made durable as they are, and removed, however many files are in them."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from k2.checkpoints.manifest import walk


def make_folder(place: Path) -> None:
    """Make a folder and those above it, durably."""
    if not place.is_dir():
        make_folder(place.parent)
        with contextlib.suppress(FileExistsError):
            place.mkdir()
        sync(place.parent)


def copy_tree(tree: Path, target: Path) -> None:
    """Copy folders and files, with the files' times and the modes of both. Raises Unfit or OSError."""
    target.mkdir()
    shutil.copymode(tree, target)
    for path, is_folder in walk(tree):
        if is_folder:
            (target / path).mkdir()
            shutil.copymode(tree / path, target / path)
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


def delete_tree(tree: Path) -> None:
    """Remove a folder with all that is in it, if it is there, without listing any folder whole. Of a symbolic link only itself is removed."""
    if not os.path.lexists(tree):
        return
    if tree.is_symlink():
        tree.unlink()
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
