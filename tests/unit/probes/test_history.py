"""A table's history from the metadata that pyiceberg wrote for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from k2.probes.history import read_chain
from k2.registry.history import Piece

SCHEMA = pa.schema([pa.field("raw_bytes", pa.binary()), pa.field("partition", pa.int32(), False), pa.field("offset", pa.int64(), False)])


class Written:
    """A Bronze table in a folder of the test."""

    def __init__(self, folder: Path, **properties: str) -> None:
        self.folder = folder
        self._catalog = SqlCatalog("k2", uri="sqlite://", warehouse=folder.as_uri())
        self._catalog.create_namespace("n")
        self.table = self._catalog.create_table("n.bronze", SCHEMA, properties={"format-version": "2", **properties})
        self._files = 0

    def close(self) -> None:
        self._catalog.engine.dispose()

    def append(self, *spans: tuple[int, int, int], **properties: str) -> None:
        """One file for each (partition, first, next)."""
        self.append_files([[span] for span in spans], **properties)

    def append_files(self, files: list[list[tuple[int, int, int]]], **properties: str) -> None:
        paths = []
        for spans in files:
            rows = [{"raw_bytes": b"x", "partition": p, "offset": offset} for p, first, end in spans for offset in range(first, end)]
            path = self.folder / f"{self._files}.parquet"
            self._files += 1
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
            paths.append(path.as_uri())
        self.table.add_files(paths, snapshot_properties=properties)

    def batch(self, number: int, *spans: tuple[int, int, int]) -> None:
        self.append(*spans, **{"spark.sql.streaming.queryId": "q", "spark.sql.streaming.epochId": str(number), "k2.fence": "4"})

    def chain(self, **options: Any) -> Any:
        return read_chain(self.table.metadata_location, **options)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path)
    yield made
    made.close()


def test_a_commit_of_bronze_is_read_whole(written: Written) -> None:
    """Query, batch and fence from the summary, the offsets of each Kafka partition from the bounds of its file."""
    written.batch(0, (0, 0, 5), (1, 100, 101))
    written.batch(1, (0, 5, 300))
    chain = written.chain(files_of=None)
    first, second = chain.commits
    assert chain.whole
    assert (first.query, first.batch, first.fence, first.operation, first.added, first.files) == ("q", 0, 4, "append", 6, 2)
    assert sorted(first.pieces, key=lambda p: p.partition) == [Piece("0", 0, 5, 5), Piece("1", 100, 101, 1)]
    assert second.pieces == (Piece("0", 5, 300, 295),)


def test_files_are_read_of_the_newest_commits_only(written: Written) -> None:
    """Of the others the offsets are not known, and no manifest is opened for them."""
    for batch in range(3):
        written.batch(batch, (0, batch, batch + 1))
    assert [c.pieces is not None for c in written.chain(files_of=1).commits] == [False, False, True]
    assert [c.pieces for c in written.chain().commits] == [None, None, None]


def test_manifests_that_were_merged_are_found_in_older_lists(tmp_path: Path) -> None:
    """The newest list no longer names the manifest of each batch; the batch's own list does."""
    written = Written(tmp_path, **{"commit.manifest-merge.enabled": "true", "commit.manifest.min-count-to-merge": "2"})
    for batch in range(5):
        written.batch(batch, (0, batch * 10, batch * 10 + 10))
    pieces = [c.pieces for c in written.chain(files_of=None).commits]
    written.close()
    assert pieces == [(Piece("0", batch * 10, batch * 10 + 10, 10),) for batch in range(5)]


def test_a_file_of_several_partitions_proves_no_offsets(written: Written) -> None:
    """The commit stays without offsets, and the reason is said."""
    written.append_files([[(0, 0, 2), (1, 0, 2)]], **{"spark.sql.streaming.queryId": "q", "spark.sql.streaming.epochId": "0"})
    (commit,) = written.chain(files_of=None).commits
    assert commit.pieces is None and "several Kafka partitions" in commit.why_no_pieces


def test_a_manifest_that_is_gone_leaves_its_batch_unknown(written: Written) -> None:
    """The others are read."""
    for batch in range(2):
        written.batch(batch, (0, batch, batch + 1))
    snapshot = written.table.snapshots()[0]
    Path(snapshot.manifests(written.table.io)[0].manifest_path.removeprefix("file://")).unlink()
    first, second = written.chain(files_of=None).commits
    assert first.pieces is None and first.why_no_pieces.startswith("FileNotFoundError")
    assert second.pieces is not None


def test_an_expired_beginning_is_told(written: Written) -> None:
    """What is left is no whole history."""
    for batch in range(3):
        written.batch(batch, (0, batch, batch + 1))
    written.table.maintenance.expire_snapshots().by_id(written.table.snapshots()[0].snapshot_id).commit()
    chain = written.chain(files_of=None)
    assert not chain.whole and [c.batch for c in chain.commits] == [1, 2]


def test_silver_carries_its_offsets_itself(written: Written) -> None:
    """Counts and offsets are in the summary, last offsets included."""
    counts = {"k2.rows-read": "9", "k2.rows-silver": "8", "k2.rows-dlq": "1", "k2.bronze-snapshot": "77", "k2.bronze-offsets": json.dumps({"3": [10, 18]})}
    written.append((0, 0, 8), **{"k2.query-id": "s", "k2.batch-id": "5", "k2.fence": "2", **counts})
    (commit,) = written.chain().commits
    assert (commit.query, commit.batch, commit.fence) == ("s", 5, 2)
    assert (commit.rows_read, commit.rows_silver, commit.rows_dlq, commit.bronze_snapshot) == (9, 8, 1, 77)
    assert commit.pieces == (Piece("3", 10, 19),)


def test_a_table_without_rows_has_an_empty_whole_history(written: Written) -> None:
    """Nothing was ever committed, and nothing is missing."""
    assert written.chain(files_of=None).commits == [] and written.chain().whole


def test_another_store_is_an_error() -> None:
    """Metadata is read from this machine's disk; the error names the location."""
    with pytest.raises(ValueError, match="s3://bucket"):
        read_chain("s3://bucket/metadata.json")
