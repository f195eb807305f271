"""The retained history of a table: its snapshots, and the Kafka offsets that the files of each hold, by the bounds in its manifests.

No data file is read. Silver's snapshots carry their offsets themselves.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from k2.probes.iceberg import local_file
from k2.registry.history import Chain, Commit, Piece

SPARK_QUERY, SPARK_EPOCH = "spark.sql.streaming.queryId", "spark.sql.streaming.epochId"
QUERY, BATCH, FENCE = "k2.query-id", "k2.batch-id", "k2.fence"
ADDED = 1
"""Status of an entry whose file the manifest's own snapshot added."""
ENTRY_FIELDS, FILE_FIELDS = {"status", "data_file"}, {"record_count", "lower_bounds", "upper_bounds"}


def read_chain(metadata_location: str, *, files_of: int | None = 0) -> Chain:
    """The main branch, oldest first. The newest `files_of` of a streaming query's commits get the offsets of their files, all for None.

    Raises OSError or ValueError when the metadata file cannot be read. Manifests that cannot be read leave their commits
    without offsets, with the reason.
    """
    metadata = json.loads(local_file(metadata_location).read_bytes())
    raw = _branch(metadata)
    commits = [_commit(snapshot) for snapshot in raw]
    if files_of is None or files_of > 0:
        begin = 0 if files_of is None else max(0, len(commits) - files_of)
        commits[begin:] = _with_files(metadata, raw[begin:], commits[begin:])
    return Chain(commits, whole=not raw or raw[0].get("sequence-number") == 1)


def _branch(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The snapshots of main, oldest first, back to where the chain of parents ends."""
    by_id = {s["snapshot-id"]: s for s in metadata.get("snapshots", [])}
    found = []
    current = metadata.get("current-snapshot-id")
    while current in by_id:
        found.append(by_id.pop(current))
        current = found[-1].get("parent-snapshot-id")
    return found[::-1]


def _commit(raw: Mapping[str, Any]) -> Commit:
    summary = raw.get("summary", {})
    offsets = summary.get("k2.bronze-offsets")
    return Commit(
        snapshot=raw["snapshot-id"],
        at=datetime.fromtimestamp(raw["timestamp-ms"] / 1000, UTC),
        operation=summary.get("operation", "unknown"),
        added=int(summary.get("added-records", 0)),
        removed=int(summary.get("deleted-records", 0)),
        files=int(summary.get("added-data-files", 0)),
        query=summary.get(QUERY) or summary.get(SPARK_QUERY),
        batch=_number(summary, BATCH, SPARK_EPOCH),
        fence=_number(summary, FENCE),
        rows_read=_number(summary, "k2.rows-read"),
        rows_silver=_number(summary, "k2.rows-silver"),
        rows_dlq=_number(summary, "k2.rows-dlq"),
        bronze_snapshot=_number(summary, "k2.bronze-snapshot"),
        pieces=tuple(Piece(p, first, last + 1) for p, (first, last) in json.loads(offsets).items()) if offsets is not None else None,
        why_no_pieces="" if offsets is not None else "its files were not read",
    )


def _number(summary: Mapping[str, str], *keys: str) -> int | None:
    for key in keys:
        if key in summary:
            return int(summary[key])
    return None


def _with_files(metadata: Mapping[str, Any], raw: Sequence[Mapping[str, Any]], commits: Sequence[Commit]) -> list[Commit]:
    columns = _columns(metadata)
    if columns is None:
        return [replace(c, why_no_pieces="the table has no columns partition and offset") for c in commits]
    manifests: dict[int, list[str]] = {}
    found = []
    # Newest first: the newest list names the manifests of all before it, up to where they were rewritten.
    for snapshot, commit in zip(reversed(raw), reversed(commits), strict=True):
        if commit.query is None or commit.pieces is not None:
            found.append(commit)
            continue
        try:
            if commit.snapshot not in manifests and commit.files:
                _read_list(snapshot["manifest-list"], manifests)
            pieces = [piece for path in manifests.get(commit.snapshot, ()) for piece in _pieces(path, *columns)]
            found.append(replace(commit, pieces=tuple(pieces), why_no_pieces=""))
        except (OSError, ValueError) as error:
            found.append(replace(commit, why_no_pieces=f"{type(error).__name__}: {error}"))
    return found[::-1]


def _columns(metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    """Field ids of Kafka's partition and offset."""
    schema = next((s for s in metadata.get("schemas", []) if s["schema-id"] == metadata.get("current-schema-id")), {"fields": []})
    ids = {field["name"]: field["id"] for field in schema["fields"]}
    return (ids["partition"], ids["offset"]) if {"partition", "offset"} <= set(ids) else None


def _read_list(location: str, manifests: dict[int, list[str]]) -> None:
    """Add the manifests that a snapshot's list names, by the snapshot that wrote each."""
    import fastavro

    newly: dict[int, list[str]] = {}
    with local_file(location).open("rb") as file:
        for entry in fastavro.reader(file):
            newly.setdefault(entry["added_snapshot_id"], []).append(entry["manifest_path"])
    for snapshot, paths in newly.items():
        manifests.setdefault(snapshot, paths)


def _pieces(manifest: str, partition: int, offset: int) -> Iterator[Piece]:
    """One for each file that the manifest's snapshot added. Raises ValueError for a file without bounds, or with several partitions."""
    import fastavro

    with local_file(manifest).open("rb") as file:
        blocks = fastavro.block_reader(file)
        projected = _projected(blocks.writer_schema)
        file.seek(0)
        for entry in fastavro.reader(file, reader_schema=projected):
            if entry["status"] != ADDED:
                continue
            data = entry["data_file"]
            lower, upper = ({b["key"]: b["value"] for b in data[side] or ()} for side in ("lower_bounds", "upper_bounds"))
            if not {partition, offset} <= set(lower) & set(upper):
                raise ValueError(f"a file in {manifest} has no bounds of partition and offset")
            number = struct.unpack("<i", lower[partition])[0]
            if lower[partition] != upper[partition]:
                raise ValueError(f"a file in {manifest} holds several Kafka partitions, so its bounds prove no offsets")
            yield Piece(str(number), struct.unpack("<q", lower[offset])[0], struct.unpack("<q", upper[offset])[0] + 1, data["record_count"])


def _projected(schema: Any) -> dict[str, Any]:
    """The writer's schema with only those fields that are used."""
    fields = [dict(f) for f in schema["fields"] if f["name"] in ENTRY_FIELDS]
    for field in fields:
        if field["name"] == "data_file":
            field["type"] = {**field["type"], "fields": [f for f in field["type"]["fields"] if f["name"] in FILE_FIELDS]}
    return {**schema, "fields": fields}
