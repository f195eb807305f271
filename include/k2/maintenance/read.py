"""Reads tables through pyiceberg with the reader's role, and the positions of the streams that read them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from k2.catalog import open_table
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.maintenance.facts import QUERY_ID_PROPERTIES, Files, Floor, Orphans, Snapshot, TableFacts
from k2.registry.runtime import Runtime

if TYPE_CHECKING:
    from pyiceberg.table import Table

SMALL = 0.75
EXAMPLES = 20


def read_table(runtime: Runtime, name: str, *, now: datetime, orphan_days: float, budget_seconds: float) -> TableFacts | None:
    """The facts of one table, None when it does not exist yet. `budget_seconds` bounds the look for orphan files."""
    table = open_table(runtime, name, "reader")
    if table is None:
        return None
    metadata = table.metadata
    listed = list(_listed(_local(metadata.location)))
    return TableFacts(
        name=name,
        metadata_location=table.metadata_location,
        metadata_versions=len(metadata.metadata_log) + 1,
        snapshots=[_snapshot(s) for s in metadata.snapshots],
        refs={ref: at.snapshot_id for ref, at in metadata.refs.items()},
        files=_files(table, runtime.platform.tables[name].target_file_size_mb * 1024 * 1024),
        orphans=_orphans(table, listed, now - timedelta(days=orphan_days), budget_seconds),
    )


def reader_floors(runtime: Runtime, table: str) -> list[Floor]:
    """Where each stream that reads `table` stands. One that never committed would begin at the oldest snapshot, so all must stay."""
    floors = []
    for name, stream in runtime.platform.streams.items():
        if stream.reads != table:
            continue
        try:
            committed = read_tail(runtime.checkpoint(name)).committed
        except CheckpointUnreadable as error:
            floors.append(Floor(name, None, str(error)))
            continue
        position = committed.get("snapshot_id") if committed else None
        if not isinstance(position, int) or position < 0:
            floors.append(Floor(name, None, "its checkpoint names no snapshot yet, so it may still read from the oldest one"))
        else:
            floors.append(Floor(name, position))
    return floors


def _snapshot(snapshot: object) -> Snapshot:
    summary = snapshot.summary  # type: ignore[attr-defined]
    properties = summary.additional_properties if summary else {}
    return Snapshot(
        id=snapshot.snapshot_id,  # type: ignore[attr-defined]
        parent=snapshot.parent_snapshot_id,  # type: ignore[attr-defined]
        at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),  # type: ignore[attr-defined]
        operation=str(summary.operation.value) if summary else "unknown",
        query_id=next((properties[p] for p in QUERY_ID_PROPERTIES if p in properties), None),
    )


def _files(table: Table, target: int) -> Files:
    current = table.current_snapshot()
    sizes = []
    if current is not None:
        for manifest in current.manifests(table.io):
            sizes += [e.data_file.file_size_in_bytes for e in manifest.fetch_manifest_entry(table.io, discard_deleted=True)]
    return Files(count=len(sizes), bytes=sum(sizes), small=sum(size < target * SMALL for size in sizes))


def _local(location: str) -> Path | None:
    """The folder of a table on this machine's disk; None for any other store."""
    parsed = urlparse(location)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


def _listed(root: Path | None) -> Iterable[tuple[str, int, datetime]]:
    if root is None:
        return
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield str(path), status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)


def _orphans(table: Table, listed: list[tuple[str, int, datetime]], cutoff: datetime, budget_seconds: float) -> Orphans:
    """Files listed before the table is read again, older than `cutoff`, that nothing retained names.

    One look is no proof: a later run may only ever act on what two looks a day apart agree on.
    """
    if _local(table.metadata.location) is None:
        return Orphans(why_not=f"{table.metadata.location} is not on this machine's disk")
    table.refresh()
    live = _live(table, time.monotonic() + budget_seconds)
    if live is None:
        return Orphans(why_not=f"reading {len(table.metadata.snapshots)} snapshots takes more than {budget_seconds:g} s")
    found = [(path, size) for path, size, changed in listed if changed < cutoff and _main_file(path) not in live]
    return Orphans(count=len(found), bytes=sum(size for _, size in found), examples=[path for path, _ in found[:EXAMPLES]])


def _main_file(path: str) -> str:
    """The file that a checksum file of Hadoop's local file system belongs to, or the file itself."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name[1:-4]}" if name.startswith(".") and name.endswith(".crc") else path


def _live(table: Table, deadline: float) -> set[str] | None:
    """Local paths of all that the table's metadata names; None when the deadline passes first."""
    metadata = table.metadata
    names = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    names |= {s.statistics_path for s in metadata.statistics} | {s.statistics_path for s in metadata.partition_statistics}
    manifests = {}
    for snapshot in metadata.snapshots:
        if time.monotonic() > deadline:
            return None
        names.add(snapshot.manifest_list)
        manifests |= {m.manifest_path: m for m in snapshot.manifests(table.io)}
    for path, manifest in manifests.items():
        if time.monotonic() > deadline:
            return None
        names.add(path)
        names |= {e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io, discard_deleted=False)}
    return {str(_local(name)) for name in names}
