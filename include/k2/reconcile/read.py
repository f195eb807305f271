"""Reads what Kafka and the Iceberg tables hold of each exchange's topic."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from k2.catalog import open_table
from k2.reconcile.compare import Holdings, PartitionResult, Position, compare
from k2.registry.platform import Layer, Platform
from k2.registry.runtime import Runtime

if TYPE_CHECKING:
    from confluent_kafka import Consumer

Ends = Mapping[int, int]
"""Per partition, the offset before which records are looked at."""

PAUSE_SECONDS = 2.0


def digest(key: bytes | None, value: bytes | None) -> bytes:
    """A digest of one record that tells an absent key or value from an empty one."""
    parts = hashlib.blake2b(digest_size=16)
    for part in (key, value):
        parts.update(b"-" if part is None else b"+%d:" % len(part) + part)
    return parts.digest()


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


def read_topic(runtime: Runtime, topic: str, ends: Ends | None = None) -> Iterator[tuple[Position, bytes | None, bytes | None]]:
    """Every record before `ends` (by default: before now) that the topic still holds, as (position, key, value)."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    with _consumer(runtime) as consumer:
        marks = _watermarks(consumer, topic)
        ends = ends or {p: high for p, (_, high) in marks.items()}
        lows = {p: low for p, (low, _) in marks.items() if low < ends[p]}
        consumer.assign([TopicPartition(topic, p, low) for p, low in lows.items()])
        unread = set(lows)
        while unread:
            for message in consumer.consume(10_000, timeout=0.1):
                error, partition = message.error(), message.partition()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if error is None and message.offset() < ends[partition]:
                    yield (partition, message.offset()), message.key(), message.value()
                if error is not None or message.offset() >= ends[partition] - 1:
                    unread.discard(partition)


def _positions(runtime: Runtime, table: str, ends: Ends, row_filter: str | None = None) -> list[Position]:
    """(partition, offset) of every row before `ends`; none while the table does not exist."""
    opened = open_table(runtime, table, "reader")
    if opened is None:
        return []
    columns = ("kafka_partition", "kafka_offset")
    rows = opened.scan(selected_fields=columns, **({"row_filter": row_filter} if row_filter else {})).to_arrow()
    return [(p, o) for p, o in zip(*(rows[name].to_pylist() for name in columns), strict=True) if o < ends[p]]


def _bronze(runtime: Runtime, table: str, ends: Ends) -> list[tuple[Position, bytes]]:
    """Position and digest of every row before `ends`."""
    opened = open_table(runtime, table, "reader")
    if opened is None:
        return []
    columns = ("partition", "offset", "kafka_key", "raw_bytes")
    found: list[tuple[Position, bytes]] = []
    for batch in opened.scan(selected_fields=columns).to_arrow_batch_reader():
        rows = zip(*(batch[name].to_pylist() for name in columns), strict=True)
        found += [((p, o), digest(key, value)) for p, o, key, value in rows if o < ends[p]]
    return found


def read_holdings(runtime: Runtime, platform: Platform, exchange: str, ends: Ends) -> Holdings:
    """What each place holds of the records before `ends`; exact while streams go on, because those records are fixed."""
    topic = platform.exchanges[exchange].topic
    tables = {platform.tables[t].layer: t for s in platform.streams.values() if s.exchange == exchange for t in s.writes}
    return Holdings(
        topic,
        platform.exchanges[exchange].partitions,
        silver=_positions(runtime, tables[Layer.SILVER], ends),
        dlq=_positions(runtime, tables[Layer.DLQ], ends, f"kafka_topic = '{topic}'"),
        bronze=_bronze(runtime, tables[Layer.BRONZE], ends),
        kafka={position: digest(key, value) for position, key, value in read_topic(runtime, topic, ends)},
    )


def reconcile(runtime: Runtime, platform: Platform, wait_seconds: float = 0) -> list[PartitionResult]:
    """One result per topic and partition, for the records that Kafka holds at the call.

    Those that the streams have not committed yet are waited for; what is missing after `wait_seconds` is reported as lost.
    """
    ends = {exchange: topic_ends(runtime, declared.topic) for exchange, declared in platform.exchanges.items()}
    deadline = time.monotonic() + wait_seconds
    while True:
        results = [result for exchange in platform.exchanges for result in compare(read_holdings(runtime, platform, exchange, ends[exchange]))]
        if all(r.ok for r in results) or time.monotonic() > deadline:
            return results
        time.sleep(PAUSE_SECONDS)
