"""The plan of a chaos run is a pure function of its seed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k2.chaos.faults import FAULTS
from k2.chaos.plan import ALONGSIDE, FIRST_OF_TWO, RULES, SPACED, UNDONE_BY, Kind, Subjects, Target, plan

SUBJECTS = Subjects(["bronze_a", "bronze_b", "silver_a", "silver_b"], ["silver_a", "silver_b"], ["bronze_a", "bronze_b"], ["a", "b"])
seeds, sizes = st.integers(0, 10**6), st.integers(1, 120)


@given(seeds, sizes)
def test_the_same_seed_gives_the_same_plan_of_so_many_faults(seed: int, faults: int) -> None:
    """To replay a run, its seed and number of faults are enough."""
    rounds = plan(seed, faults, SUBJECTS)
    assert rounds == plan(seed, faults, SUBJECTS)
    assert sum(len(r.faults) for r in rounds) == faults and all(len(r.faults) in (1, 2) for r in rounds)


@given(seeds, sizes, st.integers(0, 30))
def test_a_longer_plan_begins_with_a_shorter_one(seed: int, faults: int, more: int) -> None:
    """So that the first faults of a failing run can be replayed alone."""
    short, long = plan(seed, faults, SUBJECTS), plan(seed, faults + more, SUBJECTS)
    in_order = [fault for r in long for fault in r.faults]
    assert in_order[:faults] == [fault for r in short for fault in r.faults]


@given(seeds, sizes)
def test_every_fault_has_a_target_of_its_kind(seed: int, faults: int) -> None:
    """A commit is blocked of Silver only, a broker is silent only for whoever is behind the proxy."""
    for planned in plan(seed, faults, SUBJECTS):
        assert all(fault.target in SUBJECTS.of(fault.rule.target) for fault in planned.faults)
        assert 0 < planned.pause_seconds < 10


@given(seeds, sizes)
def test_two_at_once_hurt_two_different_things(seed: int, faults: int) -> None:
    """And only those that the second one does not make meaningless."""
    for planned in plan(seed, faults, SUBJECTS):
        if len(planned.faults) == 2:
            first, second = planned.faults
            assert first.kind in FIRST_OF_TWO and second.kind in ALONGSIDE
            assert first.kind is not second.kind and first.target != second.target
            assert UNDONE_BY.get(first.kind) is not second.kind


@given(seeds, st.sets(st.sampled_from(list(Kind)), max_size=5))
def test_every_kind_comes_once_before_any_comes_again(seed: int, without: set[Kind]) -> None:
    """But those that the machine cannot do, which never come."""
    kinds = [r.faults[0].kind for r in plan(seed, 2 * len(Kind), SUBJECTS, frozenset(without))]
    assert set(kinds[: len(Kind) - len(without)]) == set(Kind) - without
    assert not without & {f.kind for r in plan(seed, 100, SUBJECTS, frozenset(without)) for f in r.faults}


@given(seeds)
def test_a_stream_that_was_hurt_rests(seed: int) -> None:
    """While others of its kind can be chosen."""
    rounds = plan(seed, 100, SUBJECTS)
    for at, planned in enumerate(rounds):
        if planned.faults[0].rule.target is Target.STREAM:
            resting = {f.target for r in rounds[max(0, at - SPACED) : at] for f in r.faults}
            assert planned.faults[0].target not in resting or set(SUBJECTS.streams) <= resting


def test_every_kind_can_be_done() -> None:
    """Each has a rule and a way to do it."""
    assert set(RULES) == set(FAULTS) == set(Kind)
