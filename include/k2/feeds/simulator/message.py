"""One message of the market, before a dialect puts it into words."""

from __future__ import annotations

from dataclasses import dataclass

from k2.feeds.trades import Trade


@dataclass(frozen=True, slots=True)
class Message:
    """`number` counts the exchange's messages from 1; `event_us` is when it was sent, µs since the epoch."""

    number: int
    event_us: int
    trades: tuple[Trade, ...]

    @property
    def symbol(self) -> str:
        return self.trades[0].symbol
