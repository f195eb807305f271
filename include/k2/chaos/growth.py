"""What long load does: slopes with their errors, and what may be concluded from them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from k2.percentiles import percentile

LEAST_HOURS = 0.5
"""Caches, compiled code and heaps still grow to their size for longer than most runs of less."""
WARM_UP = 0.25
"""The first part of a run is left out of memory's slopes: every process grows at its start."""
ERRORS = 2.0
"""A slope is told from another number when it is so many standard errors away."""
MOST_SHARED = 0.99
"""No more of a sample is taken for the one before it: a run of the same value would have no end of an error."""


@dataclass(frozen=True)
class Slope:
    """A straight line through samples, by least squares: units per hour, and the standard error of that."""

    per_hour: float
    error: float


@dataclass(frozen=True)
class Commits:
    """How long batches took from plan to commit, seconds, and whether that changes."""

    count: int
    p50: float
    p95: float
    p95_first_half: float
    p95_second_half: float


def slope(samples: Sequence[tuple[float, float]]) -> Slope | None:
    """Through (hours, value) pairs in their order; None for fewer than three, or all at one time.

    Memory now is mostly memory half a minute ago, so the error is that of as many samples as are independent of each other,
    by the first-order autocorrelation of what the line leaves over.
    """
    n = len(samples)
    if n < 3:
        return None
    mean_x, mean_y = (sum(values) / n for values in zip(*samples, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    if spread == 0:
        return None
    rise = sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread
    left = [y - mean_y - rise * (x - mean_x) for x, y in samples]
    rest = sum(e**2 for e in left)
    shared = sum(a * b for a, b in pairwise(left)) / rest if rest else 0.0
    shared = min(max(shared, 0.0), MOST_SHARED)
    return Slope(rise, math.sqrt(rest / (n - 2) / spread * (1 + shared) / (1 - shared)))


def warm(samples: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The samples after the warm-up."""
    if not samples:
        return []
    first, last = samples[0][0], samples[-1][0]
    return [(hours, value) for hours, value in samples if hours >= first + WARM_UP * (last - first)]


def judgement(samples: Sequence[tuple[float, float]], hours: float, room_mb: float) -> str:
    """Whether a process leaks, by its samples after the warm-up. One that would fill its room within a week counts as leaking.

    A leak goes on as it began. What a JVM has of the system grows for hours until its heap has the size that it may have, and ever more slowly.
    """
    found = slope(samples)
    if found is None or hours < LEAST_HOURS:
        return "cannot be told yet"
    limit = room_mb / (7 * 24)
    if found.per_hour - ERRORS * found.error > limit:
        return "slows down" if _slows(samples) else "leaks"
    if found.per_hour + ERRORS * found.error < limit:
        return "does not leak"
    return "cannot be told yet"


def _slows(samples: Sequence[tuple[float, float]]) -> bool:
    """Whether the second half rises less than the first, by more than the errors of both."""
    half = len(samples) // 2
    first, second = slope(samples[:half]), slope(samples[half:])
    return first is not None and second is not None and second.per_hour + ERRORS * math.hypot(first.error, second.error) < first.per_hour


def commits(samples: Sequence[tuple[float, float]]) -> Commits | None:
    """From (hours, seconds) pairs in their order; None for fewer than two."""
    if len(samples) < 2:
        return None
    seconds = [value for _, value in samples]
    half = len(seconds) // 2
    return Commits(len(seconds), percentile(seconds, 50), percentile(seconds, 95), percentile(seconds[:half], 95), percentile(seconds[half:], 95))


def restarts(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """How many starts were made between two readings of the streams' fences."""
    return sum(after[stream] - before.get(stream, 0) for stream in after)
