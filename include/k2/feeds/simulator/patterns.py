"""How the market's rate changes with time."""

from __future__ import annotations

from enum import StrEnum

RAMP_SECONDS = 600.0
SPIKE_EVERY_SECONDS = 300.0
SPIKE_AFTER_SECONDS = 120.0
SPIKE_SECONDS = 30.0
SPIKE_FACTOR = 8.0


class Pattern(StrEnum):
    STEADY = "steady"
    """The rate R."""
    GRADUAL = "gradual"
    """From 0.1 R to 2 R in ten minutes, linearly, then 2 R."""
    SPIKE = "spike"
    """R, but 8 R for 30 s of every 5 minutes, first after 2 minutes."""


def factor(pattern: Pattern, seconds: float) -> float:
    """What the rate is multiplied by, `seconds` after the pattern began."""
    if pattern is Pattern.GRADUAL:
        return 0.1 + 1.9 * min(seconds / RAMP_SECONDS, 1.0)
    if pattern is Pattern.SPIKE:
        into = seconds % SPIKE_EVERY_SECONDS
        return SPIKE_FACTOR if SPIKE_AFTER_SECONDS <= into < SPIKE_AFTER_SECONDS + SPIKE_SECONDS else 1.0
    return 1.0
