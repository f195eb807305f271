"""The retention pre-flight: before a start, is what the stream reads next still there?

A start is not delayed by it: Kafka is asked while the start does its other questions, and a stream that reads a table
never asks Kafka.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from k2.checkpoints.reader import CheckpointUnreadable, read_offsets, read_start
from k2.checkpoints.retention import Loss, kafka_loss, snapshot_loss
from k2.probes import kafka
from k2.probes.history import read_chain
from k2.registry.history import Commit
from k2.registry.observed import Checkpoint
from k2.registry.runtime import Runtime
from k2.state.database import Connection

Held = tuple[kafka.Positions, kafka.Positions]
"""Where the topic begins and where it ends."""


class NotKnown(RuntimeError):
    """Whether a start would lose or double anything cannot be known now: no start, and the next look asks again."""


def table_location(runtime: Runtime, connection: Connection, table: str) -> str | None:
    """Where the current metadata file of a table is; None of a table that does not exist."""
    catalog = runtime.platform.catalog
    row = connection.execute(
        "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = %s AND table_namespace = %s AND table_name = %s",
        (catalog.name, catalog.namespace, table),
    ).fetchone()
    return row["metadata_location"] if row else None


def batches(runtime: Runtime, connection: Connection, table: str) -> list[Commit]:
    """The commits of streams that a table's metadata still knows of, oldest first. Raises NotKnown."""
    location = table_location(runtime, connection, table)
    if location is None:
        return []
    try:
        return [c for c in read_chain(location).commits if c.query is not None and c.batch is not None]
    except (OSError, ValueError, KeyError) as error:
        raise NotKnown(f"the metadata of {table} cannot be read: {type(error).__name__}: {error}") from error


def newest_batch(runtime: Runtime, connection: Connection, table: str, query: str) -> int | None:
    """The newest batch of a query that a table's metadata still knows of; None for none. Raises NotKnown."""
    return max((c.batch for c in batches(runtime, connection, table) if c.query == query and c.batch is not None), default=None)


class Preflight:
    """Begins to ask Kafka when it is made, if the stream reads a topic. Each is for one start."""

    def __init__(self, runtime: Runtime, stream: str) -> None:
        self._runtime = runtime
        self._stream = stream
        self._spec = runtime.platform.streams[stream]
        self._topic = runtime.platform.exchanges[self._spec.exchange].topic
        self._kafka: Future[Held] = Future()
        if self._spec.reads is None:
            threading.Thread(target=self._ask, name="k2-preflight", daemon=True).start()

    def _ask(self) -> None:
        try:
            heads = kafka.KafkaHeads(self._runtime.kafka)
            try:
                self._kafka.set_result((heads.starts([self._topic]), heads.ends([self._topic])))
            finally:
                heads.close()
        except BaseException as error:
            if not self._kafka.done():
                self._kafka.set_exception(error)

    def loss(self, connection: Connection, checkpoint: Checkpoint) -> Loss | None:
        """What the stream would lose, or have twice, by going on from this checkpoint. Raises NotKnown."""
        try:
            if checkpoint.query_id is None:
                return self._from_the_beginning(connection)
            if self._spec.reads:
                return self._of_table(connection, checkpoint) if checkpoint.committed is not None else None
            begins = checkpoint.committed or read_start(self._runtime.checkpoint(self._stream))
            return self._of_topic(checkpoint, begins) if begins is not None else None
        except NotKnown:
            raise
        except (OSError, ValueError, KeyError, CheckpointUnreadable) as error:
            raise NotKnown(f"{type(error).__name__}: {error}") from error
        except Exception as error:  # whatever a client of Kafka's raises
            raise NotKnown(f"Kafka was asked where {self._topic} begins and ends: {error}") from error

    def behind(self, checkpoint: Checkpoint) -> bool | None:
        """Whether the topic holds what this checkpoint has not committed; None of a stream that reads a table. Raises NotKnown."""
        if self._spec.reads is not None:
            return None
        try:
            _, ends = self._kafka.result(2 * kafka.ANSWER_SECONDS + 1)
        except Exception as error:  # whatever a client of Kafka's raises
            raise NotKnown(f"Kafka was asked where {self._topic} begins and ends: {error}") from error
        committed = (checkpoint.committed or {}).get(self._topic, {})
        return any(end > committed.get(partition, 0) for partition, end in ends.get(self._topic, {}).items())

    def overtaken(self, connection: Connection, checkpoint: Checkpoint) -> int | None:
        """The newest batch of the checkpoint's query in the stream's own table, if the checkpoint ends before it. Raises NotKnown.

        Spark would give the numbers of such batches to new records, and the table would take those for what it has already.
        """
        table = self._spec.writes[0]
        newest = newest_batch(self._runtime, connection, table, checkpoint.query_id) if checkpoint.query_id is not None else None
        planned = -1 if checkpoint.last_offset_batch is None else checkpoint.last_offset_batch
        return newest if newest is not None and newest > planned else None

    def _from_the_beginning(self, connection: Connection) -> Loss | None:
        table = self._spec.writes[0]
        location = table_location(self._runtime, connection, table)
        if location is None or not read_chain(location).commits:
            return None
        source = self._spec.reads or f"topic {self._topic}"
        return Loss(f"it has no checkpoint, so it would begin with the oldest that {source} holds, and {table} would have twice what it has of that already")

    def _of_topic(self, checkpoint: Checkpoint, begins: Mapping[str, Any]) -> Loss | None:
        planned: dict[str, int] = {}
        if checkpoint.in_flight and checkpoint.last_offset_batch is not None:
            planned = (read_offsets(self._runtime.checkpoint(self._stream), checkpoint.last_offset_batch)[0] or {}).get(self._topic, {})
        starts, ends = self._kafka.result(2 * kafka.ANSWER_SECONDS + 1)
        return kafka_loss(self._topic, begins.get(self._topic, {}), planned, starts.get(self._topic, {}), ends.get(self._topic, {}))

    def _of_table(self, connection: Connection, checkpoint: Checkpoint) -> Loss | None:
        assert checkpoint.committed is not None and self._spec.reads is not None
        location = table_location(self._runtime, connection, self._spec.reads)
        if location is None:
            raise NotKnown(f"table {self._spec.reads} is not in the catalog")
        return snapshot_loss(self._spec.reads, checkpoint.committed, read_chain(location), checkpoint.last_commit_at)
