"""What a checkpoint consists of, file by file, so that it can be proven later to be the same.

Two files beside the checkpoint: `manifest.json` says whose it is and why it lies there, and names the hash of
`files.jsonl`, which has a line per file, because a checkpoint may have a million of them. Writing and comparing hold one
line, one block of a file and the names of folders in memory, however many files there are.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

MANIFEST = "manifest.json"
LIST = "files.jsonl"
BLOCK = 64 * 1024
NAMES_AT_ONCE = 100_000
"""So many paths are held in memory to find those that a list does not name."""


class Kind(StrEnum):
    """Why a checkpoint lies outside the checkpoints' folder."""

    RETIRED = "retired"
    """People want its stream no more."""
    ADOPTED = "adopted"
    """Its stream was adopted, and goes on from another one or under another identity."""
    REPLACED = "replaced"
    """A backup, or one that was rebuilt from a table, takes its place."""
    LEFTOVERS = "leftovers"
    """No whole checkpoint: files that crashed writes have left in one."""
    BACKUP = "backup"
    """It is a copy, and the original went on."""


class Unfit(RuntimeError):
    """A folder holds something that no checkpoint holds, or is written to."""


class Unreadable(RuntimeError):
    """A manifest cannot be read, or is not what was written."""


class Why(BaseModel):
    """Who put a checkpoint where it lies, when, and why. `about` is the caller's, for what must be known when it goes back or goes for good."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    who: str
    why: str
    at: AwareDatetime
    about: dict[str, JsonValue] = Field(default_factory=dict)


class Manifest(Why):
    """`manifest.json`. Numbers of batches are None where there are none; `unreadable` says why nothing is known of them."""

    version: Literal[1] = 1
    id: str
    """The name of the folder that it lies in."""
    folder: str
    """The name of the checkpoint below the checkpoints' folder."""
    query_id: str | None = None
    last_planned: int | None = None
    last_committed: int | None = None
    unreadable: str | None = None
    files: int
    folders: int
    bytes: int
    list_sha256: str

    def save(self, folder: Path) -> None:
        """Write it, durably. Raises OSError, also when there is one."""
        with (folder / MANIFEST).open("x") as file:
            file.write(self.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Listed:
    """What a list holds. `sha256` is of the list itself."""

    files: int
    folders: int
    bytes: int
    sha256: str


class Item(NamedTuple):
    """One line of a list: a file, or a folder, which has a path only."""

    path: str
    size: int | None = None
    sha256: str | None = None
    mtime_ns: int | None = None


def read_manifest(folder: Path) -> Manifest:
    """Raises Unreadable."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise Unreadable(f"{MANIFEST}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "its text"
        raise Unreadable(f"{MANIFEST}, {field}: {first['msg']}, and it is {str(first['input'])[:80]!r}") from error


def walk(tree: Path) -> Iterator[tuple[str, bool]]:
    """Every path below `tree` and whether it is a folder, a folder before what it holds. Raises Unfit or OSError."""
    root, device, left = os.fspath(tree), os.lstat(tree).st_dev, [""]
    while left:
        prefix = left.pop()
        with os.scandir(f"{root}/{prefix}") as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if entry.stat(follow_symlinks=False).st_dev != device:
                        raise Unfit(f"{path} is on another file system: unmount it, for one rename moves a checkpoint whole")
                    left.append(f"{path}/")
                    yield path, True
                elif entry.is_file(follow_symlinks=False):
                    yield path, False
                else:
                    what = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
                    raise Unfit(f"{path} is {what}: remove it, for a checkpoint has files and folders only")


def write_list(tree: Path, target: Path, paths: Iterable[str] | None = None) -> Listed:
    """List what lies below `tree`, or these of its files, each file with the hash of its content, durably. Raises Unfit or OSError."""
    files = folders = total = 0
    whole = hashlib.sha256()
    with target.open("xb") as listing:
        for path, is_folder in walk(tree) if paths is None else ((path, False) for path in paths):
            if is_folder:
                folders += 1
                line = {"folder": path}
            else:
                item = _item(tree, path)
                files, total = files + 1, total + (item.size or 0)
                line = item._asdict()
            text = json.dumps(line).encode() + b"\n"
            whole.update(text)
            listing.write(text)
        listing.flush()
        os.fsync(listing.fileno())
    return Listed(files, folders, total, whole.hexdigest())


def read_list(listing: Path) -> Iterator[Item]:
    with listing.open("rb") as lines:
        for line in lines:
            found = json.loads(line)
            yield Item(found["folder"]) if "folder" in found else Item(**found)


def check_list(manifest: Manifest, listing: Path) -> None:
    """Whether a list is the one that belongs to the manifest. Raises Unreadable or OSError."""
    if digest(listing)[0] != manifest.list_sha256:
        raise Unreadable(f"{LIST} is not what {MANIFEST} says, so nothing can be compared with it")


def differences(tree: Path, listing: Path, *, content: bool) -> Iterator[str]:
    """How `tree` is not what was listed, one sentence each. Without `content` sizes and times are compared, and no file is read.

    Raises OSError, and Unfit when a file is written to meanwhile.
    """
    there = 0
    for item in read_list(listing):
        try:
            wrong = _difference(tree, item, content)
            there += 1
        except (FileNotFoundError, NotADirectoryError):
            wrong = "is missing"
        if wrong:
            yield f"{item.path} {wrong}"
    try:
        if sum(1 for _ in walk(tree)) != there:
            yield from (f"{path} was not there" for path in _unlisted(tree, listing))
    except Unfit as error:
        yield str(error)


def digest(path: Path | str) -> tuple[str, os.stat_result]:
    """The hash of a file's content, and its status. Raises Unfit when it is written to meanwhile, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before, sha256 = os.fstat(descriptor), hashlib.sha256()
        while block := os.read(descriptor, BLOCK):
            sha256.update(block)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise Unfit(f"{path} was written to while it was read: stop what writes it first")
    return sha256.hexdigest(), after


def _item(tree: Path, path: str) -> Item:
    sha256, status = digest(f"{tree}/{path}")
    return Item(path, status.st_size, sha256, status.st_mtime_ns)


def _difference(tree: Path, item: Item, content: bool) -> str | None:
    path = f"{tree}/{item.path}"
    status = os.lstat(path)
    if item.size is None or item.mtime_ns is None:
        return None if stat.S_ISDIR(status.st_mode) else "is no folder"
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if status.st_size != item.size:
        return f"has {status.st_size:,} bytes, and had {item.size:,}"
    if content and digest(path)[0] != item.sha256:
        return "has another content"
    if status.st_mtime_ns != item.mtime_ns:
        return f"was written at {_time(status.st_mtime_ns)}, and was of {_time(item.mtime_ns)}"
    return None


def _unlisted(tree: Path, listing: Path) -> Iterator[str]:
    """The paths that a list does not name. The list is read once for every NAMES_AT_ONCE of them, so that memory stays flat."""
    paths = walk(tree)
    while names := {path for path, _ in islice(paths, NAMES_AT_ONCE)}:
        for item in read_list(listing):
            names.discard(item.path)
        yield from sorted(names)


def _time(mtime_ns: int) -> str:
    return f"{datetime.fromtimestamp(mtime_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}.{mtime_ns % 10**9:09} UTC"
