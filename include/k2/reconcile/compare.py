"""Pure comparison of what Kafka, Bronze, Silver and the DLQ hold of one topic: whole columns at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

SHOWN = 5
OFFSET_BITS = 48
OFFSET_MASK = (1 << OFFSET_BITS) - 1


def positions(partitions: Numbers, offsets: Numbers) -> Numbers:
    """(partition, offset) of each Kafka record in one number; they sort by partition, then by offset. Offsets are below 2^48."""
    return (partitions.astype(np.int64) << OFFSET_BITS) | offsets.astype(np.int64)


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


@dataclass(frozen=True)
class Records:
    """Some place's records: position and digest of key and value of each."""

    positions: Numbers
    digests: Numbers


@dataclass(frozen=True)
class Holdings:
    """All that is known of one topic's records, in any order. Kafka holds each position once."""

    topic: str
    partitions: int
    kafka: Records
    """What Kafka still holds."""
    bronze: Records
    silver: Numbers
    dlq: Numbers


def compare(holdings: Holdings) -> list[PartitionResult]:
    """One result per partition, in order.

    Bronze may hold records that Kafka's retention has removed already; they count as records of Bronze.
    """
    kafka, bronze = holdings.kafka, holdings.bronze
    in_bronze, times_in_bronze = np.unique(bronze.positions, return_counts=True)
    below, times_below = np.unique(np.concatenate([holdings.silver, holdings.dlq]), return_counts=True)
    faults = {
        "not in Bronze": np.setdiff1d(kafka.positions, in_bronze),
        "changed in Bronze": _changed(kafka, bronze),
        "more than once in Bronze": in_bronze[times_in_bronze > 1],
        "in neither Silver nor DLQ": np.setdiff1d(in_bronze, below, assume_unique=True),
        "more than once below Bronze": below[(times_below > 1) | ~np.isin(below, in_bronze, assume_unique=True)],
    }
    held = [_per_partition(p, holdings.partitions) for p in (kafka.positions, bronze.positions, holdings.silver, holdings.dlq)]
    results = []
    for partition in range(holdings.partitions):
        mine = {name: found[found >> OFFSET_BITS == partition] for name, found in faults.items()}
        counts = (int(count[partition]) for count in held)
        examples = tuple(f"{name}: offset {p & OFFSET_MASK}" for name, found in mine.items() for p in found[:SHOWN].tolist())
        results.append(PartitionResult(holdings.topic, partition, *counts, *(len(found) for found in mine.values()), examples=examples))
    return results


def _changed(kafka: Records, bronze: Records) -> Numbers:
    """Positions that Bronze has with another digest than Kafka, sorted."""
    if not len(kafka.positions):
        return kafka.positions
    order = np.argsort(kafka.positions)
    sorted_positions = kafka.positions[order]
    at = np.minimum(np.searchsorted(sorted_positions, bronze.positions), len(order) - 1)
    differs = (sorted_positions[at] == bronze.positions) & (kafka.digests[order][at] != bronze.digests)
    return np.unique(bronze.positions[differs])


def _per_partition(found: Numbers, partitions: int) -> Numbers:
    return np.bincount(found >> OFFSET_BITS, minlength=partitions)
