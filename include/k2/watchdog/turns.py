"""Whose turn it is to be read. Pure: moments of a monotonic clock come in, names go out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FIRST_APART_SECONDS = 0.01
"""Between the first readings of two streams: a thousand are begun within ten seconds, four at once."""


class Turns:
    """Every stream once a period, at a phase of its own, so that readings are spread evenly and stay so."""

    def __init__(self, periods: Mapping[str, float], now: float) -> None:
        """Seconds between two readings of each stream."""
        self._periods = dict(periods)
        apart = min(FIRST_APART_SECONDS, min(periods.values(), default=0.0) / max(1, len(periods)))
        self._due = {name: now + number * apart for number, name in enumerate(periods)}
        self._soon: set[str] = set()

    def due(self, now: float) -> list[str]:
        """The streams whose turn it is. Their next one is a period after this one was due; turns that were missed are not made up for."""
        names = [name for name, moment in self._due.items() if moment <= now]
        for name in names:
            period, moment = self._periods[name], self._due[name]
            self._due[name] = moment + period * (1 + (now - moment) // period)
        found, self._soon = names + sorted(self._soon.difference(names)), set()
        return found

    def soon(self, names: Iterable[str]) -> None:
        """Make it these streams' turn as well; their next one stays when it was."""
        self._soon.update(names)
