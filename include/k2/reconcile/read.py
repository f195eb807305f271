"""Reads what Kafka and the Iceberg tables hold of each exchange's topic."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from k2.catalog import open_table
from k2.reconcile.compare import Holdings, PartitionResult, Position, compare
from k2.registry.platform import Layer, Platform
from k2.registry.runtime import Runtime

if TYPE_CHECKING:
    from pyiceberg.table import Table


def digest(key: bytes | None, value: bytes | None) -> bytes:
    """A digest of one record that tells an absent key or value from an empty one."""
    parts = hashlib.blake2b(digest_size=16)
    for part in (key, value):
        parts.update(b"-" if part is None else b"+%d:" % len(part) + part)
    return parts.digest()


def read_topic(runtime: Runtime, topic: str) -> Iterator[tuple[Position, bytes | None, bytes | None]]:
    """Every record that the topic holds now, as (position, key, value); later ones are left out."""
    from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

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
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {}
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            if high > low:
                ends[partition] = (low, high)
        consumer.assign([TopicPartition(topic, p, low) for p, (low, _) in ends.items()])
        open_partitions = set(ends)
        while open_partitions:
            for message in consumer.consume(10_000, timeout=1):
                error = message.error()
                partition = message.partition()
                if error is None and message.offset() < ends[partition][1]:
                    yield (partition, message.offset()), message.key(), message.value()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if error is not None or message.offset() >= ends[partition][1] - 1:
                    open_partitions.discard(partition)
    finally:
        consumer.close()


def _positions(table: Table | None, partition: str, offset: str, row_filter: str | None = None) -> list[Position]:
    if table is None:
        return []
    scan = table.scan(selected_fields=(partition, offset), **({"row_filter": row_filter} if row_filter else {}))
    rows = scan.to_arrow()
    return list(zip(rows[partition].to_pylist(), rows[offset].to_pylist(), strict=True))


def read_holdings(runtime: Runtime, platform: Platform, exchange: str) -> Holdings:
    """What each place holds of one exchange's topic; the tables are read after Kafka, so a live stream may be ahead in them."""
    topic = platform.exchanges[exchange].topic
    tables = {platform.tables[t].layer: t for s in platform.streams.values() if s.exchange == exchange for t in s.writes}
    kafka = {position: digest(key, value) for position, key, value in read_topic(runtime, topic)}
    bronze_rows: list[tuple[Position, bytes]] = []
    if (bronze := open_table(runtime, tables[Layer.BRONZE], "reader")) is not None:
        for batch in bronze.scan(selected_fields=("partition", "offset", "kafka_key", "raw_bytes")).to_arrow_batch_reader():
            columns = (batch[name].to_pylist() for name in ("partition", "offset", "kafka_key", "raw_bytes"))
            bronze_rows += [((p, o), digest(key, value)) for p, o, key, value in zip(*columns, strict=True)]
    return Holdings(
        topic,
        platform.exchanges[exchange].partitions,
        kafka,
        bronze_rows,
        _positions(open_table(runtime, tables[Layer.SILVER], "reader"), "kafka_partition", "kafka_offset"),
        _positions(open_table(runtime, tables[Layer.DLQ], "reader"), "kafka_partition", "kafka_offset", f"kafka_topic = '{topic}'"),
    )


def reconcile(runtime: Runtime, platform: Platform) -> list[PartitionResult]:
    """One result per topic and partition of every exchange."""
    return [result for exchange in platform.exchanges for result in compare(read_holdings(runtime, platform, exchange))]
