"""Live counts from Kafka's end offsets and the tables' snapshot summaries: no data is read."""

from __future__ import annotations

from dataclasses import dataclass

from k2.catalog import open_table
from k2.registry.platform import Layer, Platform
from k2.registry.runtime import Runtime


@dataclass(frozen=True)
class Counts:
    """Rows so far, per table and per topic; None where it could not be read."""

    topics: dict[str, int | None]
    """By exchange."""
    tables: dict[str, int]
    """By table name."""

    def of(self, platform: Platform, exchange: str, layer: Layer) -> int:
        return sum(self.tables[t] for t in tables_of(platform, exchange) if platform.tables[t].layer is layer)


def tables_of(platform: Platform, exchange: str) -> set[str]:
    """The tables that an exchange's streams write."""
    return {t for s in platform.streams.values() if s.exchange == exchange for t in s.writes}


def total_records(runtime: Runtime, table: str) -> int:
    """Rows of a table by its current snapshot's summary; 0 while it does not exist or is empty."""
    opened = open_table(runtime, table, "reader")
    snapshot = opened.current_snapshot() if opened else None
    return int(snapshot.summary["total-records"] or 0) if snapshot and snapshot.summary else 0


class Counter:
    """Reads the counts again and again over one Kafka client."""

    def __init__(self, runtime: Runtime, platform: Platform) -> None:
        from confluent_kafka import Consumer

        self._runtime, self._platform = runtime, platform
        self._kafka = Consumer({"bootstrap.servers": runtime.kafka, "group.id": "k2-demo", "enable.auto.commit": False})

    def read(self) -> Counts:
        tables = {t for s in self._platform.streams.values() for t in s.writes}
        return Counts({e: self._topic(e) for e in self._platform.exchanges}, {t: total_records(self._runtime, t) for t in tables})

    def _topic(self, exchange: str) -> int | None:
        from confluent_kafka import KafkaException, TopicPartition

        declared = self._platform.exchanges[exchange]
        try:
            marks = [self._kafka.get_watermark_offsets(TopicPartition(declared.topic, p), timeout=2) for p in range(declared.partitions)]
        except KafkaException:
            return None
        return sum(high - low for low, high in marks)

    def close(self) -> None:
        self._kafka.close()
