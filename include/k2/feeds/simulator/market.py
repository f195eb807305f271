"""One exchange's market: takes what its source has due, writes it down, and has it sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum

from k2.feeds.simulator.faults import UNKNOWN_PAIR
from k2.feeds.simulator.generator import Generator
from k2.feeds.simulator.hub import Hub
from k2.feeds.simulator.message import Message
from k2.feeds.simulator.patterns import Pattern
from k2.feeds.simulator.replay import Replay
from k2.feeds.simulator.source import Planned
from k2.feeds.simulator.truth import BookLedger, Truth, trade_line
from k2.feeds.trades import Trade

MILLISECOND = 1000
AT_ONCE = 500
"""Messages of one step: in between, the event loop serves the connections."""
IDLE_SECONDS = 0.05
SUSPENDED_US = 5_000_000
"""A step that comes this late was held up with the whole process; the market stood still meanwhile."""


class MarketState(StrEnum):
    WAITING = "waiting"
    """A replay that begins when somebody has subscribed."""
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    """A replay that has sent its last trade."""


def now_us() -> int:
    return time.time_ns() // 1000


class Market:
    """`step` does all that is due; `run` does so for ever."""

    def __init__(self, exchange: str, source: Generator | Replay, truth: Truth, hub: Hub, *, paused: bool = False, clock: Callable[[], int] = now_us) -> None:
        self.exchange, self.source, self.hub = exchange, source, hub
        self._truth, self._clock = truth, clock
        self._base: int | None = None
        """Where the source's clock has its 0, µs since the epoch in whole milliseconds; None until it begins."""
        self._paused_at: int | None = clock() if paused else None
        self._stepped = clock()

    @property
    def state(self) -> MarketState:
        if isinstance(self.source, Replay) and self.source.next_due() is None:
            return MarketState.FINISHED
        if self._paused_at is not None:
            return MarketState.PAUSED
        return MarketState.WAITING if self._base is None else MarketState.RUNNING

    def pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = self._clock()
            self.hub.event("paused")

    def resume(self) -> None:
        if self._paused_at is not None:
            self._hold(self._clock() - self._paused_at)
            self._paused_at = None
            self._stepped = self._clock()
            self.hub.event("resumed")

    def set_rate(self, rate: float | None, pattern: Pattern | None) -> None:
        """Change what the generator does from now on. Raises ValueError for a replay, whose rate is the recorded one."""
        if not isinstance(self.source, Generator):
            raise ValueError(f"{self.exchange} plays recordings: their rate is set by --speed")
        rate = self.source.rate if rate is None else rate
        pattern = self.source.pattern if pattern is None else pattern
        now = (self._paused_at or self._clock()) - self._base if self._base is not None else 0
        self.source.set_rate(rate, pattern, now)
        self.hub.event("rate", rate=rate, pattern=str(pattern))

    def _hold(self, microseconds: int) -> None:
        if self._base is not None:
            self._base += -(-microseconds // MILLISECOND) * MILLISECOND

    def _begin(self, now: int) -> None:
        self._base = -(-now // MILLISECOND) * MILLISECOND
        if isinstance(self.source, Replay):
            self.hub.event("replay", shifts_us={file: shift + self._base for file, shift in self.source.shifts_us.items()})

    def step(self) -> float:
        """Send what is due, at most AT_ONCE messages, and return the seconds until the next step."""
        now = self._clock()
        if self._paused_at is None and now - self._stepped > SUSPENDED_US:
            self._hold(now - self._stepped)
        self._stepped = now
        if self._paused_at is not None:
            return IDLE_SECONDS
        if self._base is None:
            if isinstance(self.source, Replay) and not self.hub.heard.is_set():
                return IDLE_SECONDS
            self._begin(now)
        planned: list[Planned] = []
        while len(planned) < AT_ONCE and (due := self.source.next_due()) is not None and self._base + due <= now:
            planned.append(self.source.take())
        if planned:
            self._send(planned)
        due = self.source.next_due()
        return IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(0.0, (self._base + due - self._clock()) / 1e6))

    def _send(self, planned: Sequence[Planned]) -> None:
        self.hub.note_closed()
        first = self._truth.ledger.next_message
        given: dict[str, int] = {}
        messages = []
        for number, plan in enumerate(planned, first):
            trades = tuple(self._dated(trade, given) for trade in plan.trades)
            messages.append(Message(number, plan.event_us + self._base, trades))
        self._truth.append(trade_line(trade, message.number, i) for message in messages for i, trade in enumerate(message.trades))
        self.hub.publish(messages)

    def _dated(self, trade: Trade, given: dict[str, int]) -> Trade:
        """The trade on the wall clock, with an id. `given` holds the next id of each book within this step."""
        number = trade.id
        if number is None:
            number = given.get(trade.symbol) or self._truth.ledger.books.get(trade.symbol, BookLedger()).next_id
        given[trade.symbol] = max(number + 1, given.get(trade.symbol, 0))
        return replace(trade, id=number, time_us=trade.time_us + self._base)

    def invent(self, n: int) -> list[Message]:
        """`n` messages of one trade each, of a pair that nobody asked for; they are in the truth."""
        symbol, now = UNKNOWN_PAIR[self.exchange], self._clock() // MILLISECOND * MILLISECOND
        first_message, first_id = self._truth.ledger.next_message, self._truth.ledger.books.get(symbol, BookLedger()).next_id
        kind = None if self.exchange == "binance" else "l"
        messages = [
            Message(first_message + i, now, (Trade(self.exchange, symbol, first_id + i, "1.25000000", "3.00000000", "b", kind, now),)) for i in range(n)
        ]
        self._truth.append(trade_line(m.trades[0], m.number, 0, "unknown_pair") for m in messages)
        return messages

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.step())
