"""What a spare does before it has a stream: the real jobs, on a few real records, in a catalog of its own.

A JVM that has run a batch runs the next one ten times sooner: classes are loaded, code is compiled, connections were
opened once. Nothing here can reach a stream's tables or checkpoint: the catalog is another, and so are all folders.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

import bronze
import silver
from catalog import open_catalog, scratch
from driver import Driver, Start, reason
from jvm import java_class, listen
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.registry.platform import Platform
from k2.registry.runtime import Runtime
from status import Board, Listener

STARTS: dict[str, Start] = {"bronze": bronze.start, "silver": silver.start}
ROWS = 100
FIRST_BATCH_SECONDS = 15.0
STOP_SECONDS = 5
"""A query that waits for a broker that is silent does not end before the broker answers: it is left behind."""
NO_FENCE = 0


class Interrupted(Exception):
    """The spare has been told its stream: no time for more."""


def rehearse(spark: SparkSession, runtime: Runtime, spare: str, folder: Path, told: Callable[[], bool]) -> None:
    """Run one batch of each stream's job. Raises Interrupted as soon as `told`, and whatever a job raises."""
    platform = _scene(runtime.platform, spare)
    place = runtime.model_copy(update={"checkpoints": folder / "checkpoints", "warehouse": (folder / "warehouse").as_uri()})
    # A session of its own: the spare's later session has never heard of this catalog.
    session = spark.newSession()
    session.conf.set("spark.sql.streaming.stopTimeout", str(STOP_SECONDS * 1000))
    _activate(session)
    try:
        catalog = open_catalog(session, place, platform, scratch(spare))
        try:
            _every_job(session, catalog, place, platform, spare, told)
        finally:
            _clear(session, catalog, platform)
    finally:
        _activate(spark)


def _every_job(session: SparkSession, catalog: Any, place: Runtime, platform: Platform, spare: str, told: Callable[[], bool]) -> None:
    empty: set[str] = set()
    for stream in sorted(platform.streams, key=lambda name: platform.streams[name].type):
        if platform.streams[stream].reads in empty:
            continue
        driver = Driver(place, platform, stream, NO_FENCE, scratch(spare), Board(stream, NO_FENCE))
        driver.spark, driver.catalog = session, catalog
        if _one_batch(driver, told):
            driver.say(f"rehearsed {stream}")
        else:
            driver.say(f"could not rehearse {stream}: nothing came within {FIRST_BATCH_SECONDS:.0f} s")
            empty.update(driver.spec.writes)


def _clear(session: SparkSession, catalog: Any, platform: Platform) -> None:
    """Take the scene out of the catalog. Its files go with the spare's folder."""
    namespace, tables = platform.catalog.namespace, java_class(session, "org.apache.iceberg.catalog.TableIdentifier")
    for table in platform.tables:
        catalog.dropTable(tables.parse(f"{namespace}.{table}"), False)
    session.sql(f"DROP NAMESPACE {platform.catalog.name}.{namespace}")


def _activate(spark: SparkSession) -> None:
    """Make it the session whose settings count in this thread."""
    java_class(spark, "org.apache.spark.sql.classic.SparkSession").setActiveSession(spark._jsparkSession)


def _scene(platform: Platform, spare: str) -> Platform:
    """The platform with a catalog's name of the spare's own, and one small batch for each stream."""
    small = {"trigger_seconds": 3600, "max_rows_per_trigger": ROWS}
    streams = {name: stream.model_copy(update=small) for name, stream in platform.streams.items()}
    return platform.model_copy(update={"catalog": platform.catalog.model_copy(update={"name": f"spare_{spare}"}), "streams": streams})


def _one_batch(driver: Driver, told: Callable[[], bool]) -> bool:
    """Run a stream's job until its first commit. False when there was none, as with a source without records."""
    listen(driver.spark, Listener(driver.board, None))
    query = STARTS[driver.spec.type](driver)
    deadline = time.monotonic() + FIRST_BATCH_SECONDS
    try:
        while not _committed(driver.checkpoint) and time.monotonic() < deadline:
            if told():
                raise Interrupted
            if not query.isActive:
                raise reason(driver, query)
            time.sleep(0.05)
    finally:
        driver.stopping = True
        try:
            query.stop()
        except Exception as error:  # noqa: BLE001 - whatever kept it from ending, the spare has better to do
            driver.say(f"its query has not ended after {STOP_SECONDS} s: {type(error).__name__}")
    return _committed(driver.checkpoint)


def _committed(checkpoint: Path) -> bool:
    try:
        return read_tail(checkpoint).last_commit_batch is not None
    except CheckpointUnreadable:
        return False
