"""Checkpoints that Spark wrote, damaged, and Spark restarted on them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.streaming import DataStreamWriter, StatefulProcessor, StatefulProcessorHandle, StreamingQuery

from ...fixtures.checkpoints.generate import KINDS, SNAPSHOTS_SOON, add_files
from ...fixtures.checkpoints.load import unpack

SECONDS = 60


@dataclass
class Ran:
    """What one start of a query came to."""

    query_id: str = ""
    batches: list[int] = field(default_factory=list)
    """Those that the sink was given."""
    values: list[int] = field(default_factory=list)
    error: str = ""
    """Empty when the query came to its end."""


class Lab:
    """`spark` is a session of the test's own, `folder` its place."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark = spark
        self.folder = folder
        # The first query with state sets how often the state of all is kept up, in the whole JVM.
        for name, value in SNAPSHOTS_SOON.items():
            spark.conf.set(name, value)

    # Checkpoints

    def as_before(self, kind: str) -> Path:
        """The checkpoint, in a session with the settings that it was made with, which Spark does not all keep in it."""
        for name, value in KINDS[kind].settings.items():
            self.spark.conf.set(name, value)
        return self.checkpoint(kind)

    def checkpoint(self, kind: str) -> Path:
        return unpack(kind, self.folder)

    def checkpoint_of_files(self) -> Path:
        """That of the files 0 to 31, which its log now names where `files` has put them: Spark looks at the last batch's again."""
        self.files(0, 32)
        checkpoint = self.checkpoint("files")
        log = checkpoint / "sources" / "0"
        was = json.loads((log / "0").read_text().splitlines()[1])["path"].rpartition("/")[0]
        for file in log.iterdir():
            if file.suffix == ".crc":
                file.unlink()
            else:
                file.write_text(file.read_text().replace(was, (self.folder / "input").as_uri()))
        return checkpoint

    @staticmethod
    def query_id(checkpoint: Path) -> str:
        return json.loads((checkpoint / "metadata").read_text())["id"]

    # Sources

    def numbers(self) -> DataFrame:
        """Three in each batch, without end: batch N has those from 3 N on."""
        return self.spark.readStream.format("rate-micro-batch").option("rowsPerBatch", 3).load().select("value")

    def files(self, first: int, count: int, per_batch: int = 1) -> DataFrame:
        """The folder of files as a stream of numbers, after `count` more files have been put into it. File N holds the number N."""
        source = self.folder / "input"
        add_files(source, first, count)
        return self.spark.readStream.schema("v bigint").option("maxFilesPerTrigger", per_batch).json(source.as_uri()).selectExpr("v AS value")

    def counts(self) -> DataFrame:
        """What the kinds of checkpoint that have state count."""
        return self.numbers().selectExpr("value % 4 AS k").groupBy("k").count()

    def latest(self) -> DataFrame:
        """The latest number of each key, by transformWithState."""

        class Latest(StatefulProcessor):  # in here it is sent to the workers as a value; they cannot import this module
            def init(self, handle: StatefulProcessorHandle) -> None:
                self.latest = handle.getValueState("latest", "n long")

            def handleInputRows(self, key: Any, rows: Iterator[Row], timerValues: Any) -> Iterator[Row]:
                for row in rows:
                    self.latest.update((row.value,))
                    yield row

            def close(self) -> None:
                pass

        rows = self.numbers().selectExpr("value % 4 AS k", "value")
        return rows.groupBy("k").transformWithState(Latest(), "k long, value long", "Update", "None")

    def table(self) -> str:
        """An Iceberg table of numbers, empty."""
        catalog = "spark.sql.catalog.lab"
        self.spark.conf.set(catalog, "org.apache.iceberg.spark.SparkCatalog")
        self.spark.conf.set(f"{catalog}.type", "hadoop")
        self.spark.conf.set(f"{catalog}.warehouse", (self.folder / "warehouse").as_uri())
        self.spark.sql("CREATE TABLE lab.db.numbers (value bigint) USING iceberg")
        return "lab.db.numbers"

    def values(self, table: str) -> list[int]:
        return sorted(row.value for row in self.spark.table(table).collect())

    def values_below(self, folder: Path) -> list[int]:
        """As a reader of the file sink's folder sees them."""
        return sorted(row.value for row in self.spark.read.schema("value bigint").json(folder.as_uri()).collect())

    # Queries

    @contextmanager
    def running(self, frame: DataFrame, checkpoint: Path, mode: str = "append") -> Iterator[StreamingQuery]:
        """A query that goes on, batch after batch, meanwhile."""
        writer = frame.writeStream.outputMode(mode).option("checkpointLocation", checkpoint.as_uri()).trigger(processingTime="100 milliseconds")
        query = writer.format("noop").start()
        try:
            yield query
        finally:
            query.stop()

    def run(self, frame: DataFrame, checkpoint: Path, mode: str = "append") -> Ran:
        """All that the source has, or one batch of the endless numbers, into a sink that takes whatever it is given."""
        ran = Ran()

        def sink(batch: DataFrame, number: int) -> None:
            ran.values += sorted(row[-1] for row in batch.collect())
            ran.batches.append(number)

        return self._run(ran, frame.writeStream.outputMode(mode).foreachBatch(sink), checkpoint)

    def append(self, frame: DataFrame, checkpoint: Path, table: str) -> Ran:
        """The same into an Iceberg table, by Iceberg's own sink."""
        return self._run(Ran(), frame.writeStream, checkpoint, table)

    def write_files(self, frame: DataFrame, checkpoint: Path, folder: Path) -> Ran:
        """The same into a folder, by Spark's own sink of files."""
        return self._run(Ran(), frame.writeStream.format("json").option("path", folder.as_uri()), checkpoint)

    def _run(self, ran: Ran, writer: DataStreamWriter, checkpoint: Path, table: str | None = None) -> Ran:
        writer = writer.option("checkpointLocation", checkpoint.as_uri()).trigger(availableNow=True)
        try:
            query = writer.toTable(table) if table else writer.start()
            ran.query_id = str(query.id)
            assert query.awaitTermination(SECONDS), f"not done after {SECONDS} s: {query.status}"
        except StreamingQueryException as error:
            ran.error = str(error)
        return ran


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not so after {SECONDS} s"
        time.sleep(0.05)


def remove(checkpoint: Path, *names: str, checksum: bool = True) -> None:
    """Files or folders below a checkpoint, all of which must be there; with the checksums of files, unless those are to stay."""
    for name in names:
        path = checkpoint / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
            if checksum:
                path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


def names(folder: Path) -> set[str]:
    """Without checksums."""
    return {path.name for path in folder.iterdir() if path.suffix != ".crc"}
