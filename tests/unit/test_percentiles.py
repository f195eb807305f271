from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.percentiles import percentile


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float) -> None:
    """At least so many of them do not exceed it, and its ends are the least and the greatest."""
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent * len(values) / 100
    assert (percentile(values, 0), percentile(values, 100)) == (min(values), max(values))


def test_of_nothing_there_is_none() -> None:
    with pytest.raises(ValueError, match="of nothing"):
        percentile([], 50)
