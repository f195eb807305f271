"""Where a table stands, from its metadata file alone: no data file and no manifest is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlparse

import msgspec

from k2.registry.history import NO_SNAPSHOT
from k2.registry.observed import Head


@dataclass(frozen=True)
class Snapshot:
    id: int
    at: datetime
    appends: bool
    """False for snapshots that a streaming reader skips: compaction replaces files and adds no row."""
    rows: int
    """Added by it."""
    files: int
    """Added by it."""
    total: int = 0
    """Rows of the whole table."""


class TableHeads:
    """The main branch of each table, newest snapshot first; a metadata file is read once."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, list[Snapshot]]] = {}

    def branch(self, table: str, metadata_location: str) -> list[Snapshot]:
        """Raises OSError or ValueError when the metadata file cannot be read."""
        kept = self._seen.get(table)
        if kept is None or kept[0] != metadata_location:
            known = {snapshot.id: snapshot for snapshot in kept[1]} if kept else {}
            kept = self._seen[table] = metadata_location, main_branch(local_file(metadata_location).read_bytes(), known)
        return kept[1]


def local_file(location: str) -> Path:
    """Where a file: location is on this machine. Raises ValueError for any other store."""
    parts = urlparse(location)
    if parts.scheme not in ("", "file"):
        raise ValueError(f"metadata at {location!r} cannot be read: the probe reads file: locations")
    return Path(unquote(parts.path))


def main_branch(metadata: bytes, known: Mapping[int, Snapshot] = MappingProxyType({})) -> list[Snapshot]:
    """The retained snapshots of main, newest first; empty for a table without rows. A snapshot never changes: `known` ones are taken over.

    `metadata` is the JSON of a metadata file. Raises ValueError when it is none.
    """
    try:
        table = _TABLE.decode(metadata)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the table's metadata cannot be read: {error}") from error
    by_id = {raw.snapshot_id: raw for raw in table.snapshots}
    found = []
    current = table.current_snapshot_id
    while current is not None and (raw := by_id.pop(current, None)) is not None:
        found.append(known.get(current) or _snapshot(raw))
        current = raw.parent_snapshot_id
    return found


class _Summary(msgspec.Struct, rename="kebab"):
    operation: str = ""
    added_records: str = "0"
    added_data_files: str = "0"
    total_records: str = "0"


class _Snapshot(msgspec.Struct, rename="kebab"):
    snapshot_id: int
    timestamp_ms: int
    parent_snapshot_id: int | None = None
    summary: _Summary = msgspec.field(default_factory=_Summary)


class _Table(msgspec.Struct, rename="kebab"):
    """What is read of a table's metadata; the rest, most of it, is passed over."""

    current_snapshot_id: int | None = None
    snapshots: list[_Snapshot] = []


_TABLE = msgspec.json.Decoder(_Table)


def _snapshot(raw: _Snapshot) -> Snapshot:
    return Snapshot(
        id=raw.snapshot_id,
        at=datetime.fromtimestamp(raw.timestamp_ms / 1000, UTC),
        appends=raw.summary.operation == "append",
        rows=int(raw.summary.added_records),
        files=int(raw.summary.added_data_files),
        total=int(raw.summary.total_records),
    )


def head(branch: list[Snapshot], committed: Mapping[str, Any] | None, now: datetime) -> Head:
    """The table's newest snapshot, and the lag in rows and in seconds since the oldest unread rows were committed.

    A snapshot that is read in part counts whole, so the lag is never told too small. Both lags are None when the
    committed snapshot is no longer on the branch.
    """
    newest = branch[0] if branch else None
    position = {"snapshot_id": newest.id if newest else NO_SNAPSHOT, "position": newest.files if newest else 0}
    unread = _unread(branch, committed)
    if unread is None:
        return Head(position, lag_rows=None, lag_seconds=None)
    waiting = [s for s in unread if s.appends and s.rows]
    return Head(position, lag_rows=sum(s.rows for s in waiting), lag_seconds=max(0.0, (now - waiting[-1].at).total_seconds()) if waiting else 0.0)


def _unread(branch: list[Snapshot], committed: Mapping[str, Any] | None) -> list[Snapshot] | None:
    if committed is None or committed["snapshot_id"] == NO_SNAPSHOT:
        return branch
    for index, snapshot in enumerate(branch):
        if snapshot.id == committed["snapshot_id"]:
            return branch[: index + (0 if committed["position"] >= snapshot.files else 1)]
    return None
