"""The reconciliation must see every way in which a record can be lost, changed or doubled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k2.reconcile.compare import Holdings, Position, compare

positions = st.tuples(st.integers(0, 2), st.integers(0, 20))


def healthy(records: set[Position], dead: set[Position]) -> Holdings:
    return Holdings(
        "t", 3, {p: b"x" for p in records}, [(p, b"x") for p in sorted(records)], [p for p in records if p not in dead], [p for p in records if p in dead]
    )


@given(st.sets(positions), st.sets(positions))
def test_healthy_holdings_are_green(records: set[Position], dead: set[Position]) -> None:
    """What is everywhere exactly once has no fault, and its counts add up."""
    results = compare(healthy(records, dead))
    assert all(r.ok for r in results)
    assert sum(r.kafka for r in results) == sum(r.bronze for r in results) == sum(r.silver + r.dlq for r in results) == len(records)


@given(st.sets(positions, min_size=1), st.data())
def test_each_single_fault_is_seen_in_its_partition(records: set[Position], data: st.DataObject) -> None:
    """One lost, changed or doubled record turns exactly its partition red, with an example."""
    victim = data.draw(st.sampled_from(sorted(records)))
    holdings = healthy(records, set())
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
