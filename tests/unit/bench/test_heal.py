"""The figures of the healing benchmark."""

from __future__ import annotations

import pytest

from k2.bench.heal import RIVAL, figures


def test_each_percentile_is_compared_with_the_rivals_own() -> None:
    """Medians with medians, 95th percentiles with 95th percentiles."""
    spare, cold, bare = [float(n) for n in range(1, 22)], [20.0] * 3, [float(10 * n) for n in range(1, 22)]
    p50, p95, p50_cold = figures(spare, cold, bare)
    assert (p50.what, p50.value, p50.rival, p50.rival_value, p50.ratio) == ("p50 with spare", 11.0, RIVAL, 110.0, 0.1)
    assert (p95.what, p95.value, p95.rival_value, p95.ratio) == ("p95 with spare", 20.0, 200.0, 0.1)
    assert (p50_cold.what, p50_cold.value, p50_cold.ratio) == ("p50 cold", 20.0, round(20 / 110, 3))


@pytest.mark.parametrize("samples", [[3.0], [3.0, 3.0]])
def test_few_samples_are_enough(samples: list[float]) -> None:
    """A short run has figures too; how many samples are behind them is said."""
    assert [len(figure.samples) for figure in figures(samples, samples, samples)] == [len(samples)] * 3
