"""What the tables say of the place where a stream goes on: the Kafka offsets that Bronze holds, and its files in the order in which Silver reads them.

Manifests are read, and the columns partition and offset of a data file whose bounds prove no offsets. A file that the stream wrote itself proves them by
its bounds: its rows come straight from Kafka. Who writes others may have sorted and thinned them out: a row twice and another missing have the same
bounds, and as many rows. Memory grows with the gaps, not with the files.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from k2.probes.history import SPARK_QUERY, read_chain
from k2.probes.iceberg import local_file
from k2.registry.history import NO_SNAPSHOT, Commit, Piece, Span

EXISTING, DELETED = 0, 2
"""Status of an entry that an earlier snapshot added, and of one that is no longer in the table."""
DATA = 0
"""Content of a manifest of data files; the other is one of row-level deletes."""
ENTRY_FIELDS = {"status", "snapshot_id", "data_file"}
FILE_FIELDS = {"file_path", "file_format", "record_count", "lower_bounds", "upper_bounds"}
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Held:
    """What Bronze holds of one Kafka partition."""

    spans: tuple[Span, ...]
    """Rising; between two of them is a gap."""
    doubled: tuple[Span, ...]
    """Where an offset is there more than once."""
    topics: frozenset[str]
    """As the file with the last offset names them."""
    last_at: datetime
    """When Kafka says that the record with the last offset was written."""

    @property
    def last(self) -> int:
        """The last offset."""
        return self.spans[-1][1] - 1


@dataclass(frozen=True)
class Bronze:
    """What a Bronze table holds of its topic, per partition. `opened`: files of which columns were read, because their bounds prove nothing."""

    partitions: Mapping[str, Held]
    files: int
    opened: int
    since: date | None = None
    """Manifests that hold only earlier days were passed over."""


@dataclass(frozen=True)
class File:
    """A data file of Bronze: per Kafka partition its first offset, the one after its last, and its rows."""

    rows: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Appended:
    """A snapshot of Bronze that Silver reads. The position in an offset of Silver's source counts these files, in this order."""

    snapshot: int
    files: tuple[File, ...]


@dataclass(frozen=True)
class Source:
    """The snapshots that Silver read last, oldest first; none when the newest of them is no longer on main. `whole`: nothing was there before."""

    appended: tuple[Appended, ...]
    whole: bool


class Spans:
    """Spans of offsets that are put in in any order. Those that touch are one."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._nexts: list[int] = []

    def add(self, first: int, end: int) -> list[Span]:
        """Returns what of it was there already."""
        begin, stop = bisect_left(self._nexts, first), bisect_right(self._firsts, end)
        touched = list(zip(self._firsts[begin:stop], self._nexts[begin:stop], strict=True))
        there = [(max(first, f), min(end, n)) for f, n in touched if max(first, f) < min(end, n)]
        self._firsts[begin:stop] = [min([first, *(f for f, _ in touched)])]
        self._nexts[begin:stop] = [max([end, *(n for _, n in touched)])]
        return there

    def all(self) -> tuple[Span, ...]:
        return tuple(zip(self._firsts, self._nexts, strict=True))


def read_bronze(metadata_location: str, partitions: Collection[str], since: date | None = None) -> Bronze:
    """What the current snapshot of a Bronze table holds. Compaction does not matter: the live files are read, not the history.

    All files are read, which proves that there is no gap; with `since`, manifests that end before that day only if one of `partitions`,
    those of the topic, has no row after it. Raises OSError, or ValueError for a table whose offsets cannot be proven this way.
    """
    metadata = json.loads(local_file(metadata_location).read_bytes())
    snapshot = next((s for s in metadata.get("snapshots", []) if s["snapshot-id"] == metadata.get("current-snapshot-id")), None)
    if snapshot is None:
        return Bronze({}, 0, 0)
    reading = _Reading(_ids(metadata), {s["snapshot-id"] for s in metadata["snapshots"] if _is_streamed(s.get("summary", {}))})
    earlier = []
    for manifest in _manifests(snapshot):
        if since is not None and _ends_before(manifest, metadata, since):
            earlier.append(manifest)
        else:
            reading.read([manifest])
    if not set(partitions) <= reading.found():
        reading.read(earlier)
        earlier = []
    return Bronze(reading.held(), reading.files, reading.opened, since if earlier else None)


def read_source(metadata_location: str, batches: Sequence[Commit]) -> Source:
    """The snapshots of Bronze that some batches of Silver read, which are given newest first: as many as hold the rows of the last batch with rows
    before the newest snapshot, and on back to the one that the oldest of the batches reached, if it is retained.

    Raises OSError, or ValueError for a file whose offsets cannot be known.
    """
    chain = read_chain(metadata_location)
    ids = [c.snapshot for c in chain.commits]
    newest, oldest = batches[0].bronze_snapshot, batches[-1].bronze_snapshot
    rows = next((c.rows_read for c in batches if c.rows_read), 0)
    if newest not in ids:
        return Source((), chain.whole and newest == NO_SNAPSHOT)
    metadata = json.loads(local_file(metadata_location).read_bytes())
    raw, columns = {s["snapshot-id"]: s for s in metadata["snapshots"]}, _ids(metadata)
    found: list[Appended] = []
    at, before = ids.index(newest), 0
    until = ids.index(oldest) if oldest in ids else at
    while at >= 0 and (before < rows or at >= until):
        commit = chain.commits[at]
        if commit.operation == "append":
            found.append(Appended(commit.snapshot, tuple(_added(raw[commit.snapshot], columns))))
            before += sum(f.rows for f in found[-1].files) if commit.snapshot != newest else 0
        at -= 1
    return Source(tuple(reversed(found)), chain.whole and at < 0)


class _Reading:
    """Live files, added up."""

    def __init__(self, columns: tuple[int, int], streamed: Collection[int]) -> None:
        """`streamed`: the snapshots whose files prove their offsets by their bounds."""
        self._columns = columns
        self._streamed = streamed
        self._there: dict[str, Spans] = {}
        self._doubled: dict[str, Spans] = {}
        self._last: dict[str, tuple[int, str]] = {}
        self.files = self.opened = 0

    def found(self) -> set[str]:
        return set(self._there)

    def read(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        for manifest in manifests:
            if manifest.get("content", DATA) != DATA:
                raise ValueError(f"{manifest['manifest_path']} deletes single rows: which offsets are left cannot be known from files")
            for entry in _entries(manifest["manifest_path"]):
                if entry["status"] != DELETED:
                    added = entry["snapshot_id"]
                    # The entries of a new manifest have the snapshot of the manifest.
                    self._file(entry["data_file"], streamed=(manifest["added_snapshot_id"] if added is None else added) in self._streamed)

    def _file(self, data: Mapping[str, Any], *, streamed: bool) -> None:
        self.files += 1
        piece = _by_bounds(data, *self._columns) if streamed else None
        self.opened += piece is None
        for partition, first, end in [(piece.partition, piece.first, piece.next)] if piece else _runs(data):
            there = self._there.setdefault(partition, Spans()).add(first, end)
            for doubled in there:
                self._doubled.setdefault(partition, Spans()).add(*doubled)
            if end > self._last.get(partition, (-1, ""))[0]:
                self._last[partition] = end, data["file_path"]

    def held(self) -> dict[str, Held]:
        doubled = {p: spans.all() for p, spans in self._doubled.items()}
        last: dict[str, dict[str, int]] = {}
        for partition, (end, path) in self._last.items():
            last.setdefault(path, {})[partition] = end - 1
        read = {path: _last_records(path, offsets) for path, offsets in last.items()}
        found = {}
        for partition in sorted(self._there, key=int):
            topics, at = read[self._last[partition][1]]
            found[partition] = Held(self._there[partition].all(), doubled.get(partition, ()), topics, at[partition])
        return found


def _is_streamed(summary: Mapping[str, str]) -> bool:
    return summary.get("operation") == "append" and SPARK_QUERY in summary


def _ids(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Field ids of Kafka's partition and offset."""
    schema = next((s for s in metadata.get("schemas", []) if s["schema-id"] == metadata.get("current-schema-id")), {"fields": []})
    ids = {field["name"]: field["id"] for field in schema["fields"]}
    if not {"partition", "offset"} <= set(ids):
        raise ValueError("the table has no columns partition and offset: it is no Bronze table")
    return ids["partition"], ids["offset"]


def _manifests(snapshot: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    import fastavro

    with local_file(snapshot["manifest-list"]).open("rb") as file:
        yield from fastavro.reader(file)  # type: ignore[misc]


def _ends_before(manifest: Mapping[str, Any], metadata: Mapping[str, Any], day: date) -> bool:
    """Whether all files of a manifest are of days before this one, as far as its list tells."""
    spec = next(s for s in metadata["partition-specs"] if s["spec-id"] == manifest["partition_spec_id"])
    place = next((i for i, f in enumerate(spec["fields"]) if f["transform"] == "day"), None)
    summaries = manifest["partitions"]
    if place is None or not summaries or summaries[place]["upper_bound"] is None:
        return False
    return bool(struct.unpack("<i", summaries[place]["upper_bound"])[0] < (day - date(1970, 1, 1)).days)


def _entries(manifest: str) -> Iterator[dict[str, Any]]:
    import fastavro

    with local_file(manifest).open("rb") as file:
        projected = _projected(fastavro.block_reader(file).writer_schema)
        file.seek(0)
        yield from fastavro.reader(file, reader_schema=projected)  # type: ignore[misc]


def _projected(schema: Any) -> dict[str, Any]:
    """The writer's schema with only those fields that are used."""
    fields = [dict(f) for f in schema["fields"] if f["name"] in ENTRY_FIELDS]
    for field in fields:
        if field["name"] == "data_file":
            field["type"] = {**field["type"], "fields": [f for f in field["type"]["fields"] if f["name"] in FILE_FIELDS]}
    return {**schema, "fields": fields}


def _added(snapshot: Mapping[str, Any], columns: tuple[int, int]) -> Iterator[File]:
    """The files that a snapshot added, in the order of its manifests, as Iceberg's streaming source counts them."""
    for manifest in _manifests(snapshot):
        if manifest["added_snapshot_id"] != snapshot["snapshot-id"] or manifest.get("content", DATA) != DATA:
            continue
        for entry in _entries(manifest["manifest_path"]):
            if entry["status"] == EXISTING:
                raise ValueError(f"{manifest['manifest_path']} was merged from older ones: how Silver's source counts its files is not known here")
            if entry["status"] != DELETED:
                piece = _by_bounds(entry["data_file"], *columns)
                yield File(entry["data_file"]["record_count"], (piece,) if piece else _pieces(entry["data_file"]))


def _by_bounds(data: Mapping[str, Any], partition: int, offset: int) -> Piece | None:
    """What a file holds, if its bounds prove it: one Kafka partition, and as many rows as offsets. None if they do not."""
    lower, upper = ({b["key"]: b["value"] for b in data[side] or ()} for side in ("lower_bounds", "upper_bounds"))
    if not {partition, offset} <= set(lower) & set(upper) or lower[partition] != upper[partition]:
        return None
    first, end = struct.unpack("<q", lower[offset])[0], struct.unpack("<q", upper[offset])[0] + 1
    number = struct.unpack("<i", lower[partition])[0]
    return Piece(str(number), first, end, data["record_count"]) if end - first == data["record_count"] else None


def _pieces(data: Mapping[str, Any]) -> tuple[Piece, ...]:
    """Per Kafka partition the first and last of a file's offsets, whatever is between."""
    found: dict[str, tuple[int, int, int]] = {}
    for partition, first, end in _runs(data):
        before = found.get(partition, (first, end, 0))
        found[partition] = min(first, before[0]), max(end, before[1]), before[2] + end - first
    return tuple(Piece(p, *of) for p, of in sorted(found.items()))


def _runs(data: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Every row of a file, as (partition, first offset, the one after the last)."""
    import numpy as np

    for batch in _columns(data["file_path"], ["partition", "offset"], data["file_format"]):
        partitions, offsets = (batch.column(name).to_numpy() for name in ("partition", "offset"))
        order = np.lexsort((offsets, partitions))
        partitions, offsets = partitions[order], offsets[order]
        breaks = np.flatnonzero((np.diff(partitions) != 0) | (np.diff(offsets) != 1)) + 1
        begins, ends = np.concatenate(([0], breaks)), np.concatenate((breaks, [len(offsets)])) - 1
        for partition, first, last in zip(partitions[begins].tolist(), offsets[begins].tolist(), offsets[ends].tolist(), strict=True):
            yield str(partition), first, last + 1


def _last_records(path: str, offsets: Mapping[str, int]) -> tuple[frozenset[str], dict[str, datetime]]:
    """The topics that a file names, and when the record with the offset of each partition was written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    topics: set[str] = set()
    found: dict[str, datetime] = {}
    for batch in _columns(path, ["topic", "partition", "offset", "kafka_timestamp"], "PARQUET"):
        topics.update(batch.column("topic").unique().to_pylist())
        for partition, offset in offsets.items():
            rows = batch.filter(pc.and_(pc.equal(batch.column("partition"), int(partition)), pc.equal(batch.column("offset"), offset)))
            for at in rows.column("kafka_timestamp").cast(pa.timestamp("us", "UTC")).to_pylist():
                found[partition] = at
    return frozenset(topics), found


def _columns(path: str, names: Sequence[str], file_format: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    if file_format.upper() != "PARQUET":
        raise ValueError(f"{path} is of format {file_format}: the offsets of a file are read from parquet only")
    with pq.ParquetFile(Path(local_file(path))) as file:
        if missing := set(names) - set(file.schema_arrow.names):
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(names)):
            if empty := [name for name in names if batch.column(name).null_count]:
                raise ValueError(f"{path} has rows without {', '.join(empty)}: which records of Kafka they are cannot be known")
            if batch.num_rows:
                yield batch
