"""Recordings as a source: each trade once, with the recorded spacing, then it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k2.feeds.simulator.recordings import Recording
from k2.feeds.simulator.source import Planned

MILLISECOND = 1000


class Replay:
    """One exchange's recordings side by side, all beginning at 0 of this source's clock.

    At `speed` 1 a trade happens when it is sent. Faster, the trades keep their spacing but lie in the past, so that the
    last one happens when it is sent and none in the future.
    """

    def __init__(self, recordings: Sequence[Recording], speed: float = 1.0) -> None:
        planned: list[Planned] = []
        self.shifts_us: dict[str, int] = {}
        """Per file: what to add to a recorded time to get the source's, µs; whole milliseconds."""
        for recording in recordings:
            first = min(t.time_us for t in recording.trades) // MILLISECOND * MILLISECOND
            span = max(m.event_us for m in recording.messages) - first
            early = int(span * max(0.0, 1 - 1 / speed)) // MILLISECOND * MILLISECOND
            shift = -first - early
            self.shifts_us[recording.file] = shift
            for message in recording.messages:
                due = max(0, int((message.event_us - first) / speed))
                trades = tuple(replace(t, time_us=t.time_us + shift) for t in message.trades)
                planned.append(Planned(due, message.event_us + shift, trades))
        planned.sort(key=lambda message: message.due_us)
        self._planned = planned
        self._next = 0

    def next_due(self) -> int | None:
        return self._planned[self._next].due_us if self._next < len(self._planned) else None

    def take(self) -> Planned:
        self._next += 1
        return self._planned[self._next - 1]
