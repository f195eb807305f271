"""The one way in which this project takes a percentile."""

from __future__ import annotations

import math
from collections.abc import Collection


def percentile(values: Collection[float], percent: float) -> float:
    """By nearest rank, so one that was really measured: at least `percent` % of the values do not exceed it. Raises ValueError without values."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    return sorted(values)[max(0, math.ceil(percent * len(values) / 100) - 1)]
