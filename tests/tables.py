"""Iceberg tables that pyiceberg writes, for tests without Spark."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.transforms import DayTransform

from k2.probes.rebuilding import Source, read_bronze, read_source
from k2.registry.history import Commit

SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), False),
        pa.field("partition", pa.int32(), False),
        pa.field("offset", pa.int64(), False),
        pa.field("kafka_timestamp", pa.timestamp("us", "UTC"), False),
        pa.field("ingestion_date", pa.date32(), False),
    ]
)
DAY = date(2026, 3, 1)
TOPIC = "market.crypto.trades.x.raw"
Offsets = list[tuple[int, int]]
"""(partition, offset) of each row of a file, in its order."""


def kafka_timestamp(offset: int) -> datetime:
    """When the record was written: each has another millisecond."""
    return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(milliseconds=offset)


def run(partition: int, first: int, end: int) -> Offsets:
    return [(partition, offset) for offset in range(first, end)]


class Written:
    """A Bronze table in a folder of the test, partitioned by day."""

    def __init__(self, folder: Path, **properties: str) -> None:
        self.folder = folder
        self._catalog = SqlCatalog("k2", uri="sqlite://", warehouse=folder.as_uri())
        self._catalog.create_namespace("n")
        self.table = self._catalog.create_table("n.bronze", SCHEMA, properties={"format-version": "2", **properties})
        with self.table.update_spec() as update:
            update.add_field("ingestion_date", DayTransform())
        self._files = 0
        self._replaced: set[int] = set()

    def close(self) -> None:
        self._catalog.engine.dispose()

    def file(self, rows: Offsets, day: date = DAY, topic: str = TOPIC) -> Path:
        path = self.folder / f"{self._files}.parquet"
        self._files += 1
        values = [{"topic": topic, "partition": p, "offset": o, "kafka_timestamp": kafka_timestamp(o), "ingestion_date": day} for p, o in rows]
        pq.write_table(pa.Table.from_pylist(values, schema=SCHEMA), path)
        return path

    def append(self, *files: Offsets, day: date = DAY, topic: str = TOPIC, streamed: bool = True) -> int:
        """One snapshot, by a streaming query or by somebody else. Returns its id."""
        query = {"spark.sql.streaming.queryId": "streamed"} if streamed else {}
        self.table.add_files([self.file(rows, day, topic).as_uri() for rows in files], snapshot_properties=query)
        return int(self.table.current_snapshot().snapshot_id)

    def compact(self) -> None:
        """All rows into one file, in an order of its own; the snapshots of that are told to be `replace`, as Iceberg's own compaction makes them."""
        before = {s.snapshot_id for s in self.table.snapshots()}
        rows = [(row["partition"], row["offset"]) for row in self.table.scan().to_arrow().to_pylist()]
        random.Random(7).shuffle(rows)
        with self.table.transaction() as change:
            change.delete(AlwaysTrue())
            change.add_files([self.file(rows).as_uri()])
        self._replaced |= {s.snapshot_id for s in self.table.snapshots()} - before

    @property
    def location(self) -> str:
        metadata = json.loads(Path(self.table.metadata_location.removeprefix("file://")).read_text())
        for snapshot in metadata["snapshots"]:
            if snapshot["snapshot-id"] in self._replaced:
                snapshot["summary"]["operation"] = "replace"
        told = self.folder / "told.metadata.json"
        told.write_text(json.dumps(metadata))
        return told.as_uri()

    def bronze(self, *partitions: str, **options: Any) -> Any:
        return read_bronze(self.location, partitions, **options)

    def source(self, newest: int, rows: int, back_to: int | None = None) -> Source:
        """What is read for a batch with so many rows that reached `newest`, after one that reached `back_to`."""
        batches = [Commit(1, datetime(2026, 3, 1, tzinfo=UTC), "append", rows_read=rows, bronze_snapshot=newest)]
        return read_source(self.location, batches if back_to is None else [*batches, replace(batches[0], bronze_snapshot=back_to)])
