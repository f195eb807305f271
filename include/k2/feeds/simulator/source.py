"""Where a market's messages come from, on a clock of their own that begins at 0."""

from __future__ import annotations

from dataclasses import dataclass

from k2.feeds.trades import Trade


@dataclass(frozen=True, slots=True)
class Planned:
    """A message to be sent when the source's clock reads `due_us`. Its trades' times and `event_us` are on that clock too.

    A trade without an id gets the book's next one, unless its exchange has none.
    """

    due_us: int
    event_us: int
    trades: tuple[Trade, ...]
