"""Writes a batch of Silver: classified once, counted, then appended to Silver and to the DLQ at most once each."""

from __future__ import annotations

import functools
import json
import operator
import time
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as f

from catalog import java_catalog, load_table
from classification import Classifier
from driver import Driver, Stopping
from failures import Ended, classify
from k2.checkpoints.reader import read_offsets, read_tail
from k2.registry.observed import ExitCode
from k2.state.skips import Skip
from poison import NARROW_SECONDS, Range, among, failed_before, narrow, records_of
from registry_schemas import RegistryUnreachable, SchemaBook
from tables import LAYOUTS

QUERY_ID, BATCH_ID, UNKNOWN_SCHEMAS = "k2.query-id", "k2.batch-id", "k2.unknown-schemas"
ROWS_SILVER, ROWS_DLQ = "k2.rows-silver", "k2.rows-dlq"
SKIPS = "k2.skips"
"""Ids in k2.skips of what was left out of a batch: a replay leaves out the same."""


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
                self._newest = {key: summary.get(key) for key in (BATCH_ID, ROWS_SILVER, ROWS_DLQ, UNKNOWN_SCHEMAS, SKIPS)}
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

    def __init__(self, driver: Driver, classifier: Classifier, book: SchemaBook, skips: tuple[Skip, ...] = ()) -> None:
        self._driver = driver
        self._classifier = classifier
        self._book = book
        self._skips = skips
        self._silver_table, self._dlq_table = driver.spec.writes
        self._outputs: tuple[AppendOnce, AppendOnce] | None = None
        self._query_id = ""

    def write(self, bronze: DataFrame, batch_id: int) -> None:
        """Called by Spark for each batch. An exception is kept for the driver, because Spark hands on its text alone."""
        try:
            self._write(bronze, batch_id)
        except BaseException as error:
            self._driver.failure = error
            if isinstance(error, Exception) and not isinstance(error, Stopping):
                self._blame(bronze, batch_id, classify(error))
            raise

    def _write(self, bronze: DataFrame, batch_id: int) -> None:
        silver, dlq = self._outputs or self._open(bronze.sparkSession)
        done = silver.committed(batch_id)
        if done and int(done[BATCH_ID]) > batch_id:
            return  # a later batch began only when this one was in both tables
        skips = self._skips_of(batch_id, done)
        classified, count = self._classify(bronze, _numbers(done[UNKNOWN_SCHEMAS]) if done else frozenset(), skips)
        try:
            properties = self._properties(batch_id, count) | ({SKIPS: ",".join(str(skip.id) for skip in skips)} if skips else {})
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

    def _skips_of(self, batch_id: int, done: dict[str, str] | None) -> tuple[Skip, ...]:
        """What is to be left out of a batch; of one that is in Silver already, what was left out then."""
        found = tuple(skip for skip in self._skips if skip.batch == batch_id)
        if done is None:
            return found
        then = _numbers(done[SKIPS] or "")
        return tuple(skip for skip in found if skip.id in then)

    def _blame(self, bronze: DataFrame, batch_id: int, ended: Ended) -> None:
        """Tell the driver which records a batch fails of: all of it the first time, those that fail by themselves the second."""
        if ended.code is not ExitCode.QUERY_FAILED:
            return
        try:
            rows = bronze.groupBy("topic", "partition").agg(f.min("offset").alias("first"), f.max("offset").alias("last")).collect()
            records = records_of(Range(row["topic"], str(row["partition"]), row["first"], row["last"]) for row in rows)
            self._driver.blamed = records, False
            if failed_before(self._driver, ended.fingerprint, batch_id):
                until = time.monotonic() + NARROW_SECONDS
                self._driver.say(f"batch {batch_id} failed before with {ended.fingerprint}: looking for the records that it fails of")
                self._driver.blamed = narrow(records, lambda one: self._fails(bronze, one), lambda: self._driver.stopping or time.monotonic() > until)
        except Exception as error:
            self._driver.say(f"the records that batch {batch_id} fails of could not be found: {error}")

    def _fails(self, bronze: DataFrame, part: Range) -> bool:
        """Whether a part of a batch fails like the whole. Raises what is no failure of the query."""
        rows = bronze.where(part.condition())
        classified = self._classifier.classify(rows, self._book.known).persist()
        try:
            _count(rows, classified)
        except Exception as error:
            if classify(error).code is not ExitCode.QUERY_FAILED:
                raise
            return True
        finally:
            classified.unpersist()
        return False

    def _classify(self, bronze: DataFrame, refused: frozenset[int], skips: tuple[Skip, ...]) -> tuple[DataFrame, Count]:
        """Classify and count a batch; schema ids that are met for the first time are asked of the registry.

        `refused` are the ids that count as unknown whatever the registry says now: those that this batch was
        written with when only one of its two tables was reached.
        """
        while True:
            known, observed = self._book.known.without(refused), None
            if skips:
                left_out = functools.reduce(operator.or_, (among(skip.records) for skip in skips))
                classified = self._classifier.classify(bronze.where(~left_out), known)
                classified = classified.unionByName(self._classifier.skipped(bronze.where(left_out), classified)).persist()
            else:
                observed = Observation()
                classified = self._classifier.classify(bronze.observe(observed, f.count(f.lit(1)).alias("rows")), known).persist()
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


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(part) for part in text.split(",") if part)


def _count(bronze: DataFrame, classified: DataFrame, observed: Observation | None = None) -> Count:
    """Count a classified batch. Raises RowsLost when its rows are not those that were read, as seen on the way or by counting them."""
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
        read=observed.get["rows"] if rows and observed is not None else bronze.count(),
        silver=sum(row["silver"] for row in rows),
        dlq=sum(row["dlq"] for row in rows),
        offsets={str(row["kafka_partition"]): [row["first"], row["last"]] for row in sorted(rows)},
        unknown=frozenset(i for row in rows for i in row["unknown"]),
    )
    if count.read != count.silver + count.dlq:
        raise RowsLost(f"{count.read} rows were read from Bronze, but {count.silver} are valid and {count.dlq} are not: nothing of the batch was written")
    return count
