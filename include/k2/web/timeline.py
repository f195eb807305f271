"""Outages as a small picture: one bar each, from the last good moment to having caught up, a colour for each step. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from k2.supervision.ledger import STEPS, Entry

WIDTH = 700.0
LEAST = 1.5
"""A step that was reached is seen, however short it was."""


@dataclass(frozen=True)
class Part:
    step: int
    """Its place in STEPS."""
    x: float
    width: float
    title: str


@dataclass(frozen=True)
class Bar:
    at: datetime
    parts: tuple[Part, ...]
    end: float
    """Where the bar ends, in the picture's units."""
    label: str
    open: bool


def bars(found: Sequence[Entry], now: datetime) -> list[Bar]:
    """In the order of the entries, all on one scale: the longest is WIDTH wide. One that is open lasts until now."""
    lengths = [_length(entry, now) for entry in found]
    scale = WIDTH / max(lengths, default=1.0) if max(lengths, default=0.0) > 0 else 0.0
    return [_bar(entry, length, scale) for entry, length in zip(found, lengths, strict=True)]


def _length(entry: Entry, now: datetime) -> float:
    reached = [moment for moment in entry.moments.values() if moment is not None]
    end = max([*reached, *([now] if entry.state == "open" else [])])
    return max(0.0, (end - entry.outage.good_at).total_seconds())


def _bar(entry: Entry, length: float, scale: float) -> Bar:
    parts, x = [], 0.0
    steps: list[tuple[str, float | None]] = list(entry.steps.items())
    for place, (name, seconds) in enumerate(steps):
        if seconds is not None:
            width = max(LEAST, seconds * scale)
            parts.append(Part(place, x, width, f"{name} after {seconds:.1f} s"))
            x += width
    if entry.state == "open":
        waited = length - sum(seconds or 0.0 for _, seconds in steps)
        place = next((n for n, (_, seconds) in enumerate(steps) if seconds is None), len(STEPS) - 1)
        width = max(LEAST, waited * scale)
        parts.append(Part(place, x, width, f"not {STEPS[place]} yet, for {waited:.0f} s"))
        x += width
    return Bar(entry.outage.detected_at, tuple(parts), x, f"{length:.1f} s", entry.state == "open")
