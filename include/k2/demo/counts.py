"""Live counts from Kafka's end offsets and the tables' snapshot summaries: no data is read."""

from __future__ import annotations

from dataclasses import dataclass

from k2.probes.iceberg import TableHeads
from k2.probes.kafka import KafkaHeads, KafkaSilent
from k2.probes.state import StateProbe
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

    def settled(self, platform: Platform) -> bool:
        """Whether there is as much in Bronze as in Kafka, and as much below."""
        rows = {layer: sum(n for t, n in self.tables.items() if platform.tables[t].layer is layer) for layer in Layer}
        topics = self.topics.values()
        return None not in topics and sum(n or 0 for n in topics) == rows[Layer.BRONZE] == rows[Layer.SILVER] + rows[Layer.DLQ]


def tables_of(platform: Platform, exchange: str) -> set[str]:
    """The tables that an exchange's streams write."""
    return {t for s in platform.streams.values() if s.exchange == exchange for t in s.writes}


class Counter:
    """Reads the counts again and again over clients that it keeps."""

    def __init__(self, runtime: Runtime, platform: Platform) -> None:
        self._platform = platform
        self._kafka = KafkaHeads(runtime.kafka)
        self._state = StateProbe(runtime)
        self._heads = TableHeads()

    def read(self) -> Counts:
        """The counts now. Raises StateUnavailable when PostgreSQL does not answer, OSError when a metadata file cannot be read."""
        tables = {t for s in self._platform.streams.values() for t in s.writes}
        locations = self._state.metadata_locations(tables)
        return Counts({e: self._topic(e) for e in self._platform.exchanges}, {t: self._rows(t, locations.get(t)) for t in tables})

    def _rows(self, table: str, location: str | None) -> int:
        branch = self._heads.branch(table, location) if location else []
        return branch[0].total if branch else 0

    def _topic(self, exchange: str) -> int | None:
        try:
            ends = self._kafka.ends([self._platform.exchanges[exchange].topic])
        except KafkaSilent:
            return None
        return sum(offset for partitions in ends.values() for offset in partitions.values())

    def close(self) -> None:
        self._kafka.close()
        self._state.close()
