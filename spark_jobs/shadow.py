"""A shadow: the code and configuration of now, tried on a copy of a stream's checkpoint. No table hears of it.

Run by the host agent as `shadow.py --stream NAME --query ID --folder FOLDER`, with one end of a socket as standard input:
when the other end closes, the shadow ends. It leaves FOLDER/result.json, a k2.registry.shadow.Shadow, and the writer
schemas that it has learned, which are the same for everybody. It holds no fence, and its role may only read the catalog,
in read-only transactions.

The trial begins one batch back, so that real rows go through the whole plan even while the source is idle; where they are
gone by now, from where the stream itself would go on. It ends after its first batch.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from py4j.protocol import Py4JNetworkError
from pyspark.sql import DataFrame
from pyspark.sql.streaming import StreamingQuery

import bronze
import silver
from catalog import CONNECTION_ERRORS, Access, open_catalog
from driver import Driver, Stopping, reason
from failures import causes
from jvm import QueryEvents, listen
from k2.checkpoints.clone import clone
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.registry.platform import ConfigError
from k2.registry.runtime import load_runtime
from k2.registry.shadow import Outcome, Shadow
from session import start_session
from silver_writer import SilverWriter
from status import Board
from tables import LAYOUTS, verify_table

ROWS = 1000
BATCH_SECONDS = 90.0
IDLE_MS = 1000
NO_FENCE = 0
GONE = ("data loss", "Some data may have been lost", "KAFKA_DATA_LOSS", "OffsetOutOfRange", "Cannot find snapshot", "snapshot expired")
"""Signs of a failure that the rows of the batch before are not there any more, which says nothing of the code."""
OUT_OF_REACH = ("org.apache.kafka.common.errors.TimeoutException", "Failed to construct kafka consumer", "UnknownHostException", "Connection refused")
MAX_REASON = 600


class NotTried(Exception):
    """The trial could not be brought to an end, so nothing is known."""


class Refused(Exception):
    """The code and configuration do not fit the stream."""


class Events(QueryEvents):
    """What the query has done so far."""

    def __init__(self) -> None:
        self.rows: int | None = None
        self.idled = False

    def progressed(self, progress: str) -> None:
        self.rows = int(json.loads(progress)["numInputRows"])

    def idle(self) -> None:
        self.idled = True


class Nowhere:
    """A table to which nothing was ever committed."""

    def committed(self, _: int) -> None:
        return None


class Dry(SilverWriter):
    """Does with a batch all that Silver does, and appends it nowhere."""

    def _open(self, _: Any) -> Any:
        self._query_id = str(read_tail(self._driver.checkpoint).query_id)
        self._outputs = Nowhere(), Nowhere()  # type: ignore[assignment]
        return self._outputs

    def _append(self, frame: DataFrame, table: str, properties: dict[str, str]) -> None:
        layout = LAYOUTS[self._driver.platform.tables[table].layer]
        frame.select(*layout.names).write.format("noop").mode("overwrite").save()

    def _blame(self, *_: object) -> None:
        """Spark's reason is enough: nobody skips a record because of a trial."""


def bronze_nowhere(driver: Driver) -> StreamingQuery:
    plan = bronze.records(driver).writeStream.format("noop").queryName(driver.stream).outputMode("append")
    return plan.trigger(processingTime="1 second").option("checkpointLocation", driver.checkpoint.as_uri()).start()


def silver_nowhere(driver: Driver) -> StreamingQuery:
    return silver.run(driver, Dry)


RUN: dict[str, Callable[[Driver], StreamingQuery]] = {"bronze": bronze_nowhere, "silver": silver_nowhere}


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description="Try a stream's code and configuration of now. Started by the host agent.")
    for name, words in (
        ("stream", "name of the stream"),
        ("query", "id of the query whose checkpoint it must be"),
        ("folder", "where to work and to leave the result"),
    ):
        parser.add_argument(f"--{name}", required=True, help=words)
    arguments = parser.parse_args()
    _end_with_line()
    folder = Path(arguments.folder)
    try:
        rows = shadow(arguments.stream, arguments.query, folder)
        because = f"{rows} rows went through its plan" if rows else "its plan was accepted; there was nothing to read"
        found = Shadow(arguments.stream, Outcome.COMPATIBLE, because, rows)
    except (Refused, ConfigError) as error:
        found = Shadow(arguments.stream, Outcome.INCOMPATIBLE, str(error))
    except Exception as error:
        traceback.print_exc()
        known = isinstance(error, (NotTried, CheckpointUnreadable))
        found = Shadow(arguments.stream, Outcome.UNKNOWN, (str(error) if known else f"{type(error).__name__}: {error}")[:MAX_REASON])
    (folder / "result.json").write_text(json.dumps(asdict(found)))
    print(f"{found.outcome}: {found.because}", file=sys.stderr, flush=True)
    os._exit(0)  # the JVM ends when its standard input closes


def _end_with_line() -> None:
    line = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # children must not hold the line open

    def wait() -> None:
        line.recv(1)
        os._exit(1)

    threading.Thread(target=wait, name="line", daemon=True).start()


def shadow(stream: str, query: str, folder: Path) -> int:
    """Try the stream. Returns how many rows went through its plan. Raises Refused or ConfigError, NotTried, or whatever else went wrong."""
    runtime = load_runtime()
    spec = runtime.platform.streams.get(stream)
    if spec is None:
        raise Refused(f"streams.{stream}: it is not declared in platform.yaml any more: declare it, or stop the stream")
    live = runtime.checkpoint(stream)
    tail = read_tail(live)
    if tail.query_id != query:
        held = f"query {tail.query_id}" if tail.query_id else "no query"
        raise Refused(f"streams.{stream}.checkpoint: {spec.checkpoint!r} holds {held}, and the stream's is query {query}: name the folder that it has now")
    last = tail.last_commit_batch
    if last is None:
        raise NotTried(f"{live} has no committed batch yet")
    spark = start_session(application=f"shadow {stream}", jars=runtime.jars, heap_mb=spec.heap_mb, scratch=folder / "scratch", fence=NO_FENCE)
    spark.conf.set("spark.sql.streaming.noDataProgressEventInterval", str(IDLE_MS))
    access = Access("reader", f"k2 shadow {stream}", "-c default_transaction_read_only=on")
    small = {stream: spec.model_copy(update={"trigger_seconds": 1, "max_rows_per_trigger": min(ROWS, spec.max_rows_per_trigger)})}
    platform = runtime.platform.model_copy(update={"streams": {**runtime.platform.streams, **small}})
    for batch in [last - 1, last] if last >= 1 else [last]:
        place = runtime.model_copy(update={"checkpoints": folder / f"after-{batch}"})
        driver = Driver(place, platform, stream, NO_FENCE, access, Board(stream, NO_FENCE))
        driver.spark = spark
        try:
            clone(live, driver.checkpoint, batch)
            driver.catalog = open_catalog(spark, place, platform, access)
            for table in (*([spec.reads] if spec.reads else []), *spec.writes):
                verify_table(spark, driver.catalog, platform, table)
            return _first_batch(driver)
        except ConfigError:
            raise
        except CheckpointUnreadable:
            if batch == last:
                raise
        except Exception as error:
            why = _words(error)
            driver.say(f"after batch {batch}: {why}")
            if _out_of_reach(error, why):
                raise NotTried(f"something that it needs cannot be reached: {why}") from error
            if isinstance(error, (NotTried, Stopping)):
                raise
            if batch == last or not any(sign in why for sign in GONE):
                raise Refused(why) from error
    raise AssertionError("the last trial ends in one way or another")


def _first_batch(driver: Driver) -> int:
    events = Events()
    listen(driver.spark, events)
    query = RUN[driver.spec.type](driver)
    deadline = time.monotonic() + BATCH_SECONDS
    try:
        while events.rows is None and not events.idled:
            if not query.isActive:
                raise reason(driver, query)
            if time.monotonic() > deadline:
                waits = driver.board.status.waits_for
                raise NotTried(
                    f"no batch came to its end within {BATCH_SECONDS:.0f} s" + (f": it waits for {waits}" if waits else f": {query.status['message']}")
                )
            time.sleep(0.05)
        if not query.isActive and (query.exception() or driver.failure):
            raise reason(driver, query)
    finally:
        driver.stopping = True
        query.stop()
    return events.rows or 0


def _words(error: BaseException) -> str:
    """Spark's own reason: its outermost word that is more than a wrapper, and the root's."""
    chain = causes(error)
    root = (chain[-1].text if chain else f"{type(error).__name__}: {error}").partition("\n=== Streaming Query ===")[0]
    return root[:MAX_REASON]


def _out_of_reach(error: BaseException, why: str) -> bool:
    if isinstance(error, Py4JNetworkError):
        return True
    text = why + " ".join(cause.text for cause in causes(error))
    return any(cause.sql_state.startswith(CONNECTION_ERRORS) for cause in causes(error)) or any(sign in text for sign in OUT_OF_REACH)


if __name__ == "__main__":
    main()
