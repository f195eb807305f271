"""Reads the tail of a Spark streaming checkpoint: which query, which batch was planned last, which was committed last.

A checkpoint is read while its query writes it. Spark renames each log file into place, so a file that is listed is
whole; it may vanish again when Spark purges old batches, or when the checkpoint is moved away.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k2.checkpoints import contents
from k2.registry.observed import Checkpoint

ATTEMPTS = 3


class CheckpointUnreadable(RuntimeError):
    """The checkpoint exists, but what it says cannot be known."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"checkpoint {path}: {reason}")
        self.path = path
        self.reason = reason


class _Moved(Exception):
    """A file that was listed is gone: list again."""


def read_tail(path: Path) -> Checkpoint:
    """The query id and the last batches of the checkpoint at `path`.

    A folder that does not exist is a query that never started: every field is None. Raises CheckpointUnreadable.
    """
    for _ in range(ATTEMPTS):
        try:
            return _read_tail(path)
        except _Moved:
            continue
        except OSError as error:
            raise CheckpointUnreadable(path, f"{error.strerror}: {error.filename}") from error
    raise CheckpointUnreadable(path, f"its files changed during each of {ATTEMPTS} readings")


def read_tail_of(path: Path, query_id: str, last_commit: int, last_offset: int) -> Checkpoint:
    """The tail of a checkpoint of which the last batches are known already: nothing is listed.

    Raises FileNotFoundError when one of its files is gone, CheckpointUnreadable.
    """
    try:
        return _tail(path, query_id, last_commit, last_offset)
    except _Moved:
        raise FileNotFoundError(path) from None


def read_offsets(path: Path, batch: int) -> list[dict[str, Any] | None]:
    """The end offsets that batch `batch` was planned with, one per source; None where a source had no data yet.

    Kafka: {topic: {partition: offset}}. Iceberg: {"version", "snapshot_id", "position", "scan_all_files"}.
    Raises CheckpointUnreadable, also when there is no such batch.
    """
    try:
        return _read_offsets(path, batch)
    except _Moved:
        raise CheckpointUnreadable(path, f"offsets/{batch} does not exist: Spark keeps the last 100 batches only") from None
    except OSError as error:
        raise CheckpointUnreadable(path, f"{error.strerror}: {error.filename}") from error


def read_start(path: Path) -> dict[str, Any] | None:
    """The offset of Kafka that the query was to begin with, as its source has kept it; None before its first plan. Raises CheckpointUnreadable."""
    name = "sources/0/0"
    try:
        found = contents.start(_text(path, name), name)
    except _Moved:
        return None
    except contents.Malformed as error:
        raise CheckpointUnreadable(path, str(error)) from error
    except OSError as error:
        raise CheckpointUnreadable(path, f"{error.strerror}: {error.filename}") from error
    if not isinstance(found, dict):
        raise CheckpointUnreadable(path, f"{name} is {json.dumps(found)[:80]!r}, not an object")
    return found


def first_commit_after(path: Path, at: datetime, above: int | None = None) -> tuple[int, datetime] | None:
    """The earliest of the retained batches above `above` whose commit was written after `at`, and when (the file's mtime).

    None when there is none. Raises CheckpointUnreadable.
    """
    try:
        first = None
        for batch in reversed(_batches(path / "commits")):
            if above is not None and batch <= above:
                break
            try:
                written = _written(path, f"commits/{batch}")
            except _Moved:
                break
            if written <= at:
                break
            first = (batch, written)
        return first
    except OSError as error:
        raise CheckpointUnreadable(path, f"{error.strerror}: {error.filename}") from error


def _read_tail(path: Path) -> Checkpoint:
    # Commits are listed before offsets: a batch is planned before it is committed, so the other order could show
    # a commit without its plan.
    commits = _batches(path / "commits")
    offsets = _batches(path / "offsets")
    return _tail(path, _query_id(path), commits[-1] if commits else None, offsets[-1] if offsets else None)


def _tail(path: Path, query_id: str | None, last_commit: int | None, last_offset: int | None) -> Checkpoint:
    committed = last_commit_at = None
    if last_commit is not None:
        _check_commit(path, f"commits/{last_commit}")
        last_commit_at = _written(path, f"commits/{last_commit}")
        sources = _read_offsets(path, last_commit)
        if len(sources) != 1:
            raise CheckpointUnreadable(path, f"offsets/{last_commit} names {len(sources)} sources, but a stream of this platform has one")
        committed = sources[0]
    return Checkpoint(
        query_id=query_id,
        last_offset_batch=last_offset,
        last_commit_batch=last_commit,
        last_commit_at=last_commit_at,
        committed=committed,
        last_offset_at=None if last_offset is None else _written(path, f"offsets/{last_offset}"),
    )


def _batches(folder: Path) -> list[int]:
    """Batch numbers in a log folder, rising. Spark's .crc and temporary files, and any stray file, are no batches."""
    try:
        # Names alone: entries would take four times as long, in a folder that is listed for every stream.
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal() and name.isascii())  # noqa: PTH208
    except FileNotFoundError:
        return []


def _text(path: Path, name: str) -> str:
    try:
        with open(f"{path}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - called a few hundred times a second
            return file.read().decode()
    except FileNotFoundError:
        raise _Moved from None
    except UnicodeDecodeError as error:
        raise CheckpointUnreadable(path, f"{name} is not text") from error


def _check_commit(path: Path, name: str) -> None:
    try:
        contents.lines(_text(path, name), name)
    except contents.Malformed as error:
        raise CheckpointUnreadable(path, str(error)) from error


def _query_id(path: Path) -> str | None:
    try:
        return contents.identity(_text(path, "metadata"))
    except _Moved:
        return None
    except contents.Malformed as error:
        raise CheckpointUnreadable(path, str(error)) from error


def _read_offsets(path: Path, batch: int) -> list[dict[str, Any] | None]:
    name = f"offsets/{batch}"
    try:
        sources = contents.offsets(_text(path, name), name)
    except contents.Malformed as error:
        raise CheckpointUnreadable(path, str(error)) from error
    for number, offset in enumerate(sources):
        if not isinstance(offset, dict | None):
            raise CheckpointUnreadable(path, f"{name}, source {number} is {json.dumps(offset)[:80]!r}, not an object")
    return list(sources)


def _written(path: Path, name: str) -> datetime:
    try:
        return datetime.fromtimestamp(os.stat(f"{path}/{name}").st_mtime, UTC)  # noqa: PTH116 - as often
    except FileNotFoundError:
        raise _Moved from None
