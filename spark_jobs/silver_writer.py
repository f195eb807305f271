"""Writes a batch of Silver: classified once, counted, then appended to Silver and to the DLQ at most once each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as f

from catalog import java_catalog, load_table
from classification import Classifier
from driver import Driver
from k2.checkpoints.reader import read_offsets, read_tail
from registry_schemas import RegistryUnreachable, SchemaBook
from tables import LAYOUTS

QUERY_ID, BATCH_ID, UNKNOWN_SCHEMAS = "k2.query-id", "k2.batch-id", "k2.unknown-schemas"
ROWS_SILVER, ROWS_DLQ = "k2.rows-silver", "k2.rows-dlq"


class RowsLost(RuntimeError):
    """The rows of a batch do not add up, so nothing of it was written."""


@dataclass(frozen=True)
class Count:
    """What one batch holds."""

    read: int
    silver: int
    dlq: int
    offsets: dict[str, list[int]]
    """Per Kafka partition: first and last offset."""
    unknown: frozenset[int]
    """Schema ids that are not known."""


class AppendOnce:
    """One Iceberg table, to which one query appends each batch at most once.

    Iceberg's batch writer keeps no account of batches, so every commit carries the query id and the batch id, and
    the table's history is asked before the next. Only this driver can commit for the query: the fence sees to that.
    """

    def __init__(self, spark: SparkSession, catalog: Any, namespace: str, table: str, query_id: str) -> None:
        self._table = load_table(spark, catalog, namespace, table)
        self._query_id = query_id
        self._looked_until: int | None = None
        self._newest: dict[str, str] | None = None

    def committed(self, batch_id: int) -> dict[str, str] | None:
        """What the summary of this query's newest commit says of its batch, when that is this batch or a later one; else None."""
        self._table.refresh()
        head = self._table.currentSnapshot()
        snapshot = head
        while snapshot is not None and snapshot.snapshotId() != self._looked_until:
            summary = snapshot.summary()
            if summary.get(QUERY_ID) == self._query_id:
                self._newest = {key: summary.get(key) for key in (BATCH_ID, ROWS_SILVER, ROWS_DLQ, UNKNOWN_SCHEMAS)}
                break
            parent = snapshot.parentId()
            snapshot = self._table.snapshot(parent) if parent is not None else None
        self._looked_until = head.snapshotId() if head is not None else None
        return self._newest if self._newest is not None and int(self._newest[BATCH_ID]) >= batch_id else None


def append(frame: DataFrame, table: str, properties: dict[str, str]) -> None:
    """Append a frame to an Iceberg table; the commit carries the properties."""
    writer = frame.writeTo(table).option("fanout-enabled", "true")
    for key, value in properties.items():
        writer = writer.option(f"snapshot-property.{key}", value)
    writer.append()


class SilverWriter:
    """The body of the Silver query: `write` is called for each batch."""

    def __init__(self, driver: Driver, classifier: Classifier, book: SchemaBook) -> None:
        self._driver = driver
        self._classifier = classifier
        self._book = book
        self._silver_table, self._dlq_table = driver.spec.writes
        self._outputs: tuple[AppendOnce, AppendOnce] | None = None
        self._query_id = ""

    def write(self, bronze: DataFrame, batch_id: int) -> None:
        """Called by Spark for each batch. An exception is kept for the driver, because Spark hands on its text alone."""
        try:
            self._write(bronze, batch_id)
        except BaseException as error:
            self._driver.failure = error
            raise

    def _write(self, bronze: DataFrame, batch_id: int) -> None:
        silver, dlq = self._outputs or self._open(bronze.sparkSession)
        done = silver.committed(batch_id)
        if done and int(done[BATCH_ID]) > batch_id:
            return  # a later batch began only when this one was in both tables
        classified, count = self._classify(bronze, _schema_ids(done[UNKNOWN_SCHEMAS]) if done else frozenset())
        try:
            properties = self._properties(batch_id, count)
            if done is None:
                self._append(self._classifier.silver(classified), self._silver_table, properties)
            elif (done[ROWS_SILVER], done[ROWS_DLQ]) != (str(count.silver), str(count.dlq)):
                raise RowsLost(
                    f"batch {batch_id} is in {self._silver_table} with {done['k2.rows-silver']} rows for Silver and {done['k2.rows-dlq']} for the DLQ, "
                    f"but is now classified into {count.silver} and {count.dlq}: run the rules that wrote it until the batch is in both tables"
                )
            if count.dlq and dlq.committed(batch_id) is None:
                self._append(self._classifier.dlq(classified, str(self._driver.spec.reads)), self._dlq_table, properties)
        finally:
            classified.unpersist()
        self._driver.board.update(input_rows=count.read)
        self._driver.board.count(self._silver_table, count.silver)
        self._driver.board.count(self._dlq_table, count.dlq)

    def _open(self, spark: SparkSession) -> tuple[AppendOnce, AppendOnce]:
        """The outputs, in the catalog of the query's own session: what they read anew, its writes see too."""
        catalog = self._driver.platform.catalog
        self._query_id = str(read_tail(self._driver.checkpoint).query_id)
        java = java_catalog(spark, catalog.name)
        silver, dlq = (AppendOnce(spark, java, catalog.namespace, table, self._query_id) for table in (self._silver_table, self._dlq_table))
        self._outputs = silver, dlq
        return self._outputs

    def _classify(self, bronze: DataFrame, refused: frozenset[int]) -> tuple[DataFrame, Count]:
        """Classify and count a batch; schema ids that are met for the first time are asked of the registry.

        `refused` are the ids that count as unknown whatever the registry says now: those that this batch was
        written with when only one of its two tables was reached.
        """
        while True:
            observed = Observation()
            read = bronze.observe(observed, f.count(f.lit(1)).alias("rows"))
            classified = self._classifier.classify(read, self._book.known.without(refused)).persist()
            try:
                count = _count(bronze, classified, observed)
                unsettled = count.unknown - refused
                missing = self._learn(unsettled)
                refused |= missing
            except BaseException:
                classified.unpersist()
                raise
            if missing == unsettled:
                return classified, count
            classified.unpersist()

    def _learn(self, ids: frozenset[int]) -> frozenset[int]:
        """The ids that the registry does not know. Waits for as long as it gives no answer."""
        while True:
            try:
                missing = self._book.learn(ids)
            except RegistryUnreachable as error:
                self._driver.wait("schema_registry", str(error))
            else:
                self._driver.board.wait_for(None)
                return missing

    def _properties(self, batch_id: int, count: Count) -> dict[str, str]:
        reached = read_offsets(self._driver.checkpoint, batch_id)[0]
        if reached is None:
            raise RowsLost(f"checkpoint {self._driver.checkpoint}: offsets/{batch_id} names no Bronze snapshot, though the batch has rows")
        return {
            QUERY_ID: self._query_id,
            BATCH_ID: str(batch_id),
            "k2.fence": str(self._driver.fence),
            "k2.rows-read": str(count.read),
            ROWS_SILVER: str(count.silver),
            ROWS_DLQ: str(count.dlq),
            "k2.bronze-snapshot": str(reached["snapshot_id"]),
            "k2.bronze-offsets": json.dumps(count.offsets),
            UNKNOWN_SCHEMAS: ",".join(str(i) for i in sorted(count.unknown)),
        }

    def _append(self, frame: DataFrame, table: str, properties: dict[str, str]) -> None:
        layout = LAYOUTS[self._driver.platform.tables[table].layer]
        append(frame.select(*layout.names), self._driver.table(table), properties)


def _schema_ids(text: str) -> frozenset[int]:
    return frozenset(int(part) for part in text.split(",") if part)


def _count(bronze: DataFrame, classified: DataFrame, observed: Observation) -> Count:
    """Count a classified batch. Raises RowsLost when its rows are not those that were read."""
    valid = f.col("fault").isNull()
    rows = (
        classified.groupBy("kafka_partition")
        .agg(
            f.min("kafka_offset").alias("first"),
            f.max("kafka_offset").alias("last"),
            f.count_if(valid).alias("silver"),
            f.count_if(~valid).alias("dlq"),
            f.collect_set(f.when(f.col("fault") == "schema_unknown", f.col("schema_id"))).alias("unknown"),
        )
        .collect()
    )
    count = Count(
        # Spark plans a frame without rows away, and its observation with it.
        read=observed.get["rows"] if rows else bronze.count(),
        silver=sum(row["silver"] for row in rows),
        dlq=sum(row["dlq"] for row in rows),
        offsets={str(row["kafka_partition"]): [row["first"], row["last"]] for row in sorted(rows)},
        unknown=frozenset(i for row in rows for i in row["unknown"]),
    )
    if count.read != count.silver + count.dlq:
        raise RowsLost(f"{count.read} rows were read from Bronze, but {count.silver} are valid and {count.dlq} are not: nothing of the batch was written")
    return count
