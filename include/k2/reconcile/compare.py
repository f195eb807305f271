"""Pure comparison of what Kafka, Bronze, Silver and the DLQ hold of one topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Position = tuple[int, int]
"""(partition, offset) of one Kafka record."""

SHOWN = 5


@dataclass(frozen=True)
class PartitionResult:
    """What became of the records of one partition. Counts are rows, except the last five, which are faults."""

    topic: str
    partition: int
    kafka: int
    bronze: int
    silver: int
    dlq: int
    not_in_bronze: int
    changed_in_bronze: int
    doubled_in_bronze: int
    in_neither: int
    doubled_below: int
    """In Silver and DLQ both, or twice in one of them, or in one of them and not in Bronze."""
    examples: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not (self.not_in_bronze or self.changed_in_bronze or self.doubled_in_bronze or self.in_neither or self.doubled_below)


@dataclass
class Holdings:
    """All that is known of one topic's records."""

    topic: str
    partitions: int
    kafka: Mapping[Position, bytes] = field(default_factory=dict)
    """Digest of key and value of every record that Kafka still holds."""
    bronze: Iterable[tuple[Position, bytes]] = ()
    silver: Iterable[Position] = ()
    dlq: Iterable[Position] = ()


def compare(holdings: Holdings) -> list[PartitionResult]:
    """One result per partition, in order.

    Bronze may hold records that Kafka's retention has removed already; they count as records of Bronze.
    """
    bronze_digests = list(holdings.bronze)
    bronze = Counter(position for position, _ in bronze_digests)
    silver, dlq = Counter(holdings.silver), Counter(holdings.dlq)
    below = silver + dlq
    faults: dict[str, set[Position]] = {
        "not in Bronze": {p for p in holdings.kafka if p not in bronze},
        "changed in Bronze": {p for p, digest in bronze_digests if p in holdings.kafka and holdings.kafka[p] != digest},
        "more than once in Bronze": {p for p, n in bronze.items() if n > 1},
        "in neither Silver nor DLQ": {p for p in bronze if p not in below},
        "more than once below Bronze": {p for p, n in below.items() if n > 1 or p not in bronze},
    }
    results = []
    for partition in range(holdings.partitions):
        mine = {name: sorted(p for p in found if p[0] == partition) for name, found in faults.items()}
        counts = [len(found) for found in mine.values()]
        results.append(
            PartitionResult(
                holdings.topic,
                partition,
                sum(1 for p in holdings.kafka if p[0] == partition),
                sum(n for p, n in bronze.items() if p[0] == partition),
                sum(n for p, n in silver.items() if p[0] == partition),
                sum(n for p, n in dlq.items() if p[0] == partition),
                *counts,
                examples=tuple(f"{name}: offset {p[1]}" for name, found in mine.items() for p in found[:SHOWN]),
            )
        )
    return results
