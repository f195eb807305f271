"""Reads what Kafka and the Iceberg tables hold of each exchange's topic."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from k2.catalog import open_table
from k2.reconcile.compare import Holdings, Numbers, PartitionResult, Records, compare, positions
from k2.registry.platform import Layer, Platform
from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error
from k2.state.database import StateUnavailable

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import Consumer

Ends = Mapping[int, int]
"""Per partition, the offset before which records are looked at."""

PAUSE_SECONDS = 2.0
SILENT_SECONDS = 60.0
"""A broker that gives no record for so long, while there are some, is given up."""
PIECE = 50_000
"""Records of Kafka that are held at a time."""


def digests(keys: Iterable[bytes | None], values: Iterable[bytes | None]) -> Numbers:
    """A digest of each record that tells an absent key or value from an empty one; of this process alone, because Python salts its hashes."""
    return np.fromiter(map(hash, zip(keys, values, strict=True)), np.int64)


@contextmanager
def _consumer(runtime: Runtime) -> Iterator[Consumer]:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": runtime.kafka,
            "group.id": f"k2-reconcile-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    from confluent_kafka import TopicPartition

    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in partitions}


def topic_ends(runtime: Runtime, topic: str) -> Ends:
    """The end offset of each partition now."""
    with _consumer(runtime) as consumer:
        return {p: high for p, (_, high) in _watermarks(consumer, topic).items()}


def read_topic(runtime: Runtime, topic: str, ends: Ends | None = None) -> Iterator[tuple[tuple[int, int], bytes | None, bytes | None]]:
    """Every record before `ends` (by default: before now) that the topic still holds, as ((partition, offset), key, value)."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    with _consumer(runtime) as consumer:
        marks = _watermarks(consumer, topic)
        ends = ends or {p: high for p, (_, high) in marks.items()}
        lows = {p: low for p, (low, _) in marks.items() if low < ends[p]}
        consumer.assign([TopicPartition(topic, p, low) for p, low in lows.items()])
        unread, heard = set(lows), time.monotonic()
        while unread:
            if time.monotonic() - heard > SILENT_SECONDS:
                raise K2Error(f"Kafka gave nothing of {topic} partitions {sorted(unread)} for {SILENT_SECONDS:.0f} s: see ./k2 status, then ask again")
            for message in consumer.consume(10_000, timeout=0.1):
                heard = time.monotonic()
                error, partition = message.error(), message.partition()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if error is None and message.offset() < ends[partition]:
                    yield (partition, message.offset()), message.key(), message.value()
                if error is not None or message.offset() >= ends[partition] - 1:
                    unread.discard(partition)


def _kafka(runtime: Runtime, topic: str, ends: Ends) -> Records:
    """Position and digest of every record before `ends`. The records themselves are let go piece by piece."""
    parts = []
    records = read_topic(runtime, topic, ends)
    while piece := list(itertools.islice(records, PIECE)):
        found, keys, values = zip(*piece, strict=True)
        at = np.array(found, np.int64)
        parts.append(Records(positions(at[:, 0], at[:, 1]), digests(keys, values)))
    return _together(parts)


def _scan(runtime: Runtime, table: str, columns: tuple[str, ...], ends: Ends, row_filter: str | None = None) -> Iterator[pa.Table]:
    """These columns of every row before `ends`, piece by piece; nothing while the table does not exist. The first two are partition and offset."""
    import pyarrow as pa
    import pyarrow.compute as pc

    opened = open_table(runtime, table, "reader")
    if opened is None:
        return
    ends_of = pa.array([ends.get(p, 0) for p in range(max(ends, default=-1) + 1)], pa.int64())
    for batch in opened.scan(selected_fields=columns, **({"row_filter": row_filter} if row_filter else {})).to_arrow_batch_reader():
        piece = pa.Table.from_batches([batch]).select(columns)
        yield piece.filter(pc.less(piece[columns[1]], ends_of.take(piece[columns[0]])))


def _numbers(piece: pa.Table, columns: tuple[str, ...]) -> Numbers:
    return positions(*(piece[name].to_numpy() for name in columns[:2]))


def _positions(runtime: Runtime, table: str, ends: Ends, row_filter: str | None = None) -> Numbers:
    columns = ("kafka_partition", "kafka_offset")
    found = [_numbers(piece, columns) for piece in _scan(runtime, table, columns, ends, row_filter)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _bronze(runtime: Runtime, table: str, ends: Ends) -> Records:
    columns = ("partition", "offset", "kafka_key", "raw_bytes")
    pieces = _scan(runtime, table, columns, ends)
    return _together([Records(_numbers(piece, columns), digests(*(piece[name].to_pylist() for name in columns[2:]))) for piece in pieces])


def _together(parts: list[Records]) -> Records:
    if not parts:
        return Records(np.empty(0, np.int64), np.empty(0, np.int64))
    return Records(np.concatenate([p.positions for p in parts]), np.concatenate([p.digests for p in parts]))


def read_holdings(runtime: Runtime, platform: Platform, exchange: str, ends: Ends) -> Holdings:
    """What each place holds of the records before `ends`; exact while streams go on, because those records are fixed."""
    topic = platform.exchanges[exchange].topic
    tables = {platform.tables[t].layer: t for s in platform.streams.values() if s.exchange == exchange for t in s.writes}
    return Holdings(
        topic,
        max(platform.exchanges[exchange].partitions, max(ends, default=-1) + 1),
        silver=_positions(runtime, tables[Layer.SILVER], ends),
        dlq=_positions(runtime, tables[Layer.DLQ], ends, f"kafka_topic = '{topic}'"),
        bronze=_bronze(runtime, tables[Layer.BRONZE], ends),
        kafka=_kafka(runtime, topic, ends),
    )


def reconcile(runtime: Runtime, platform: Platform, wait_seconds: float = 0) -> list[PartitionResult]:
    """One result per topic and partition, for the records that Kafka holds at the call.

    Those that the streams have not committed yet are waited for; what is missing after `wait_seconds` is reported as lost.
    Raises K2Error when one of the places cannot be read.
    """
    from confluent_kafka import KafkaException

    try:
        return _reconcile(runtime, platform, wait_seconds)
    except (KafkaException, StateUnavailable) as error:
        raise K2Error(f"not everything can be read ({str(error).splitlines()[0]}): see ./k2 status, then ask again") from error


def _reconcile(runtime: Runtime, platform: Platform, wait_seconds: float) -> list[PartitionResult]:
    ends = {exchange: topic_ends(runtime, declared.topic) for exchange, declared in platform.exchanges.items()}
    deadline = time.monotonic() + wait_seconds
    while True:
        results = [result for exchange in platform.exchanges for result in compare(read_holdings(runtime, platform, exchange, ends[exchange]))]
        if all(r.ok for r in results) or time.monotonic() > deadline:
            return results
        time.sleep(PAUSE_SECONDS)
