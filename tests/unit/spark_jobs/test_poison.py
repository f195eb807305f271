"""Narrowing a failing batch to its records."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from poison import Range, narrow, ranges_of, records_of

WHOLE = {"trades": {"0": [[0, 999]], "3": [[500, 1500]]}}


def finder(bad: set[tuple[str, int]]) -> tuple[object, list[Range]]:
    asked: list[Range] = []

    def fails(one: Range) -> bool:
        asked.append(one)
        return any(one.partition == p and one.first <= o <= one.last for p, o in bad)

    return fails, asked


@given(st.sets(st.tuples(st.just("0"), st.integers(0, 999)) | st.tuples(st.just("3"), st.integers(500, 1500)), min_size=1, max_size=12))
def test_exactly_the_records_that_fail_are_found(bad: set[tuple[str, int]]) -> None:
    """However many and wherever, with some ten questions for each."""
    fails, asked = finder(bad)
    found, sure = narrow(WHOLE, fails, lambda: False)  # type: ignore[arg-type]
    assert sure
    assert {(one.partition, offset) for one in ranges_of(found) for offset in range(one.first, one.last + 1)} == bad
    assert len(asked) <= 2 + 24 * len(bad)


@given(st.sets(st.integers(0, 999), min_size=1, max_size=5), st.integers(0, 60))
def test_what_there_is_no_time_for_is_named_in_whole_ranges(bad: set[int], questions: int) -> None:
    """No record that fails is ever left out."""
    fails, _ = finder({("0", offset) for offset in bad})
    time = itertools.count()
    found, sure = narrow(WHOLE, fails, lambda: next(time) >= questions)  # type: ignore[arg-type]
    named = {offset for one in ranges_of(found) if one.partition == "0" for offset in range(one.first, one.last + 1)}
    assert bad <= named
    assert not sure or named == bad


def test_a_batch_that_fails_only_as_a_whole_is_named_as_a_whole() -> None:
    """As one that is too large."""
    assert narrow(WHOLE, lambda one: one.last - one.first > 100, lambda: False) == (WHOLE, False)
    assert narrow(WHOLE, lambda _: False, lambda: False) == (WHOLE, False)


def test_neighbours_are_joined() -> None:
    """In the order of partitions and offsets."""
    assert records_of([Range("t", "0", 5, 5), Range("t", "0", 3, 4), Range("t", "1", 6, 6)]) == {"t": {"0": [[3, 5]], "1": [[6, 6]]}}
