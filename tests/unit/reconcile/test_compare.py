"""The reconciliation must see every way in which a record can be lost, changed or doubled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from k2.reconcile import compare as rule
from k2.reconcile.compare import PartitionResult, Records, positions
from k2.reconcile.read import digests

Position = tuple[int, int]
spots = st.tuples(st.integers(0, 2), st.integers(0, 20))


@dataclass
class Holdings:
    """What each place holds, as a test can change it."""

    topic: str
    partitions: int
    kafka: dict[Position, bytes]
    bronze: list[tuple[Position, bytes]]
    silver: list[Position]
    dlq: list[Position] = field(default_factory=list)


def columns(found: Iterable[Position]) -> rule.Numbers:
    at = np.array(list(found), np.int64).reshape(-1, 2)
    return positions(at[:, 0], at[:, 1])


def records(found: Iterable[tuple[Position, bytes]]) -> Records:
    pairs = list(found)
    values = [value for _, value in pairs]
    return Records(columns(p for p, _ in pairs), digests([b"key"] * len(values), values))


def compare(h: Holdings) -> list[PartitionResult]:
    return rule.compare(rule.Holdings(h.topic, h.partitions, records(h.kafka.items()), records(h.bronze), columns(h.silver), columns(h.dlq)))


def healthy(found: set[Position], dead: set[Position]) -> Holdings:
    return Holdings("t", 3, {p: b"x" for p in found}, [(p, b"x") for p in sorted(found)], [p for p in found if p not in dead], [p for p in found if p in dead])


@given(st.sets(spots), st.sets(spots))
def test_healthy_holdings_are_green(found: set[Position], dead: set[Position]) -> None:
    """What is everywhere exactly once has no fault, and its counts add up."""
    results = compare(healthy(found, dead))
    assert all(r.ok for r in results)
    assert sum(r.kafka for r in results) == sum(r.bronze for r in results) == sum(r.silver + r.dlq for r in results) == len(found)


@given(st.sets(spots, min_size=1), st.data())
def test_each_single_fault_is_seen_in_its_partition(found: set[Position], data: st.DataObject) -> None:
    """One lost, changed or doubled record turns exactly its partition red, with an example."""
    victim = data.draw(st.sampled_from(sorted(found)))
    holdings = healthy(found, set())
    bronze, silver = list(holdings.bronze), list(holdings.silver)
    fault = data.draw(st.sampled_from(["lost", "changed", "doubled", "neither", "both", "twice", "foreign"]))
    if fault == "lost":
        holdings.bronze = [(p, d) for p, d in bronze if p != victim]
        holdings.silver = [p for p in silver if p != victim]
    elif fault == "changed":
        holdings.bronze = [(p, b"y" if p == victim else d) for p, d in bronze]
    elif fault == "doubled":
        holdings.bronze = [*bronze, (victim, b"x")]
    elif fault == "neither":
        holdings.silver = [p for p in silver if p != victim]
    elif fault == "both":
        holdings.dlq = [victim]
    elif fault == "twice":
        holdings.silver = [*silver, victim]
    else:
        victim = (victim[0], 99)
        holdings.silver = [*silver, victim]
    results = compare(holdings)
    assert [r.partition for r in results if not r.ok] == [victim[0]]
    assert any(str(victim[1]) in example for example in results[victim[0]].examples)


def test_records_behind_kafkas_retention_stay_in_bronze() -> None:
    """Bronze outlives Kafka's retention: what Kafka no longer holds is no fault."""
    holdings = healthy({(0, 1), (0, 2)}, set())
    holdings.kafka = {(0, 2): b"x"}
    assert [r.ok for r in compare(holdings)] == [True, True, True]


def test_digests_tell_absent_from_empty() -> None:
    """A record without a key, one with an empty key and one with a key, and the same of values, are nine records."""
    kinds = [None, b"", b"x"]
    found = digests([a for a in kinds for _ in kinds], kinds * 3)
    assert len(set(found.tolist())) == 9


def test_the_highest_offsets_and_partitions_are_told_apart() -> None:
    """Position and partition share one number."""
    far = (2, 2**48 - 1)
    results = compare(Holdings("t", 3, {far: b"x"}, [(far, b"x")], [far]))
    assert [r.kafka for r in results] == [0, 0, 1] and all(r.ok for r in results)
