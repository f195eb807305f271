"""Takes out of a checkpoint what crashed writes have left in it, as a plan names it, and puts it back.

It may be done while the stream runs: nothing that is taken is anything that Spark will open again. The files go, one rename
each, into an entry of the quarantine that has their list before the first is moved; interrupted, the rest stays where it was.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from k2.checkpoints.disk import sync
from k2.checkpoints.entries import CHECKPOINT, Entry, Refused, describe, new_entry, remove_rest, verify_list
from k2.checkpoints.manifest import LIST, Kind, Why, digest, read_list
from k2.checkpoints.names import is_leftover, summed_by
from k2.checkpoints.plan import Item, Plan, items
from k2.checkpoints.quarantine import quarantine_of
from k2.state.locks import Locked

CHUNK = 100
"""So many files are moved under one hold of the lock: a start waits for less than a tenth of a second."""

Hold = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Taken:
    """What became of a plan: `stayed` counts by reason what was named and not moved."""

    entry: str | None
    files: int
    bytes: int
    stayed: dict[str, int]


def take_away(plan: Plan, root: Path, why: Why, *, most: int, seconds: float, hold: Hold) -> Taken:
    """Move what a plan names into the quarantine of the folder `root`: at most so many files, for so long; `hold` takes the checkpoint's lock.

    Each file is looked at again: one that is no longer as the plan says, or that somebody may need by now, stays. When the lock is not to be
    had, the rest stays. Raises Refused, plan.PlanChanged, OSError.
    """
    checkpoint = Path(plan.checkpoint)
    if plan.refused:
        raise Refused(f"{checkpoint}: {plan.refused}: nothing is taken out of it")
    ends = time.monotonic() + seconds
    stayed: Counter[str] = Counter()
    chosen: list[Item] = []
    for checksums in (False, True):  # a checksum goes after the file that it is of
        for item in items(plan.file):
            if item.path.endswith(".crc") is not checksums:
                continue
            if len(chosen) >= most:
                stayed["waits for the next run"] += 1
            elif reason := _stays(checkpoint, item, plan):
                stayed[reason] += 1
            else:
                chosen.append(item)
    if not chosen:
        return Taken(None, 0, 0, dict(stayed))
    moved: list[Item] = []
    with new_entry(quarantine_of(root), checkpoint, why) as folder:
        describe(checkpoint, folder, checkpoint.name, why, [item.path for item in chosen])
        held = folder / CHECKPOINT
        held.mkdir()
        left = iter(chosen)
        try:
            while chunk := list(islice(left, CHUNK)):
                if time.monotonic() > ends:
                    stayed["waits for the next run"] += len(chunk) + sum(1 for _ in left)
                    break
                try:
                    with hold():
                        _move(chunk, checkpoint, held, plan, moved, stayed)
                except Locked as error:
                    stayed[str(error)] += len(chunk) + sum(1 for _ in left)
                    break
        finally:
            if not moved:
                _remove_empty(held)
            for parent in {(place / item.path).parent for item in moved for place in (held, checkpoint)}:
                sync(parent)
            if not moved:
                remove_rest(folder)
    return Taken(folder.name if moved else None, len(moved), sum(item.size for item in moved), dict(stayed))


def _move(chunk: list[Item], checkpoint: Path, held: Path, plan: Plan, moved: list[Item], stayed: Counter[str]) -> None:
    for item in chunk:
        if reason := _stays(checkpoint, item, plan, alone=True):
            stayed[reason] += 1
            continue
        (held / item.path).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / item.path).rename(held / item.path)
        moved.append(item)


def _stays(checkpoint: Path, item: Item, plan: Plan, *, alone: bool = False) -> str | None:
    """Why a file stays where it is; None when it may go. `alone`: a checksum goes only when the file that it is of is gone."""
    name = Path(item.path).name
    file = checkpoint / item.path
    try:
        status = file.lstat()
    except FileNotFoundError:
        return "is gone already"
    if (status.st_size, status.st_mtime) != (item.size, item.changed):
        return "was written to since"
    if status.st_mtime > plan.before:
        return "may be of a batch that is under way"
    if is_leftover(name):
        return None
    of = summed_by(name) if name.endswith(".crc") else None
    if of is None or (os.path.lexists(file.with_name(of)) and (alone or not is_leftover(of))):
        return "is needed"
    return None


def put_back(entry: Entry, root: Path) -> int:
    """Move the files of an entry back into the checkpoint that they were taken out of. Interrupted, it is done again. Returns how many.

    Raises Refused: there is no such checkpoint, a place is taken, or a file is not what it was.
    """
    if entry.manifest is None or entry.manifest.kind is not Kind.LEFTOVERS:
        raise Refused(f"{entry.folder} holds no leftovers: restore it as a checkpoint")
    checkpoint = root / entry.manifest.folder
    if not checkpoint.is_dir():
        raise Refused(f"{checkpoint} does not exist: there is nothing to put them back into")
    verify_list(entry)
    moved = 0
    for path in _held(entry):
        if os.path.lexists(checkpoint / path):
            raise Refused(f"{checkpoint / path} exists: move it away, then put the rest back")
        (checkpoint / path).parent.mkdir(parents=True, exist_ok=True)
        (entry.checkpoint / path).rename(checkpoint / path)
        sync((checkpoint / path).parent)
        moved += 1
    _remove_empty(entry.checkpoint)
    remove_rest(entry.folder)
    return moved


def _remove_empty(tree: Path) -> None:
    for folder, _, _ in os.walk(tree, topdown=False):
        Path(folder).rmdir()


def _held(entry: Entry) -> Iterator[str]:
    for item in read_list(entry.folder / LIST):
        file = entry.checkpoint / item.path
        if not file.exists():
            continue  # it was never taken, or is back
        if digest(file)[0] != item.sha256:
            raise Refused(f"{file} is not what it was")
        yield item.path
