"""A seeded market: the same seed, model and settings give the same trades."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Mapping
from functools import lru_cache

from k2.feeds.simulator.model import Book, BookModel, Quantiles, Venue
from k2.feeds.simulator.patterns import Pattern, factor
from k2.feeds.simulator.source import Planned
from k2.feeds.trades import Trade

PRICE_BAND = 0.25
"""A price further than this part from the first one is stepped back towards it: it wanders for days without running away."""

_NORMAL = statistics.NormalDist()


class Shape:
    """A BookModel made ready to draw from."""

    def __init__(self, model: BookModel) -> None:
        self.model = model
        self.gap, self.size = Quantiles(model.gap_us), Quantiles(model.group_size)
        self.inner_gap, self.delay = Quantiles(model.inner_gap_us), Quantiles(model.delay_us)
        self.quantity = Quantiles(model.quantity)
        self.step, self.inner_step = Quantiles(model.step_ticks), Quantiles(model.inner_step_ticks)
        self.us_per_trade = self.gap.mean() / self.size.whole_mean()
        """Mean µs between trades at the fitted rate."""


@lru_cache(maxsize=8)
def shape_of(model: BookModel) -> Shape:
    return Shape(model)


class BookGenerator:
    """The groups of one book, one after the other."""

    def __init__(self, exchange: str, symbol: str, book: Book, venue: Venue, shape: Shape, seed: str, price: str | None = None) -> None:
        self.exchange, self.symbol, self._book, self._venue, self._shape = exchange, symbol, book, venue, shape
        self._rng = random.Random(f"{seed}:{exchange}:{symbol}")
        self._unit = 10**book.price_decimals
        self._first = round(book.first_price * self._unit)
        self._ticks = round(float(price) * self._unit) if price else self._first
        self._side = "b" if self._rng.random() < shape.model.buy_share else "s"
        self._score = self._rng.gauss(0.0, 1.0)
        self._scale = shape.model.reference_price / book.first_price
        self._step_scale = shape.model.tick / shape.model.reference_price * book.first_price * self._unit
        self._last_us = self._last_due_us = 0

    def gap_us(self, trades_per_second: float) -> float:
        """µs until the next group, at this rate of the book."""
        memory = self._shape.model.gap_memory
        self._score = memory * self._score + math.sqrt(1 - memory * memory) * self._rng.gauss(0.0, 1.0)
        stretch = 1e6 / trades_per_second / self._shape.us_per_trade
        return self._shape.gap.at(_NORMAL.cdf(self._score)) * stretch

    def group(self, start_us: int) -> list[Planned]:
        """The messages of one group, whose first trade happens at `start_us`; none is due before its last trade."""
        model, rng = self._shape.model, self._rng
        size = max(1, self._shape.size.whole(rng.random()))
        if rng.random() >= model.same_side_share:
            self._side = "s" if self._side == "b" else "b"
        order_type = None if model.market_order_share is None else ("m" if rng.random() < model.market_order_share else "l")
        steps = [0] + [self._shape.inner_gap.whole(rng.random()) for _ in range(size - 1)]
        unit = model.time_unit_us
        # A group never begins before the last trade of the one before it: an exchange's clock does not go back.
        time_us = max(self._last_us, start_us // unit * unit)
        trades = []
        for index, step in enumerate(steps):
            time_us += step // unit * unit
            self._move(first=index == 0)
            trades.append(Trade(self.exchange, self.symbol, None, self._price(), self._quantity(), self._side, order_type, time_us))
        self._last_us = time_us
        # A message never overtakes the one before it, so a late one holds up those behind it: the burst that recordings show.
        due_us = self._last_due_us = max(self._last_due_us, start_us, time_us + self._shape.delay.whole(rng.random()))
        event_us = due_us // unit * unit
        return [Planned(due_us, event_us, (t,)) for t in trades] if model.message_per_trade else [Planned(due_us, event_us, tuple(trades))]

    def _move(self, *, first: bool) -> None:
        model, rng = self._shape.model, self._rng
        if rng.random() >= (model.moved_share if first else model.inner_moved_share):
            return
        steps = max(1, round((self._shape.step if first else self._shape.inner_step).at(rng.random()) * self._step_scale))
        up = rng.random() < 0.5 if first else self._side == "b"
        if abs(self._ticks - self._first) > PRICE_BAND * self._first:
            up = self._ticks < self._first
        self._ticks = max(1, self._ticks + (steps if up else -steps))

    def _price(self) -> str:
        decimals = self._book.price_decimals
        whole, part = divmod(self._ticks, self._unit)
        text = f"{whole}.{part:0{decimals}d}" if decimals else str(whole)
        shown = self._venue.price_text_decimals
        return text if shown is None else f"{text}{'.' if not decimals else ''}{'0' * max(0, shown - decimals)}"

    def _size(self) -> float:
        place = self._rng.random()
        for value, share in self._shape.model.popular_quantities:
            place -= share
            if place < 0:
                return value
        return self._shape.quantity.at(self._rng.random())

    def _quantity(self) -> str:
        lots = max(1, round(self._size() * self._scale * 10**self._book.quantity_decimals))
        whole, part = divmod(lots, 10**self._book.quantity_decimals)
        text = f"{whole}.{part:0{self._book.quantity_decimals}d}" if self._book.quantity_decimals else f"{whole}."
        return text + "0" * (self._venue.quantity_text_decimals - self._book.quantity_decimals)


class Generator:
    """All books of one exchange as one source."""

    def __init__(
        self, exchange: str, venue: Venue, model: BookModel, *, seed: str, rate: float, pattern: Pattern, prices: Mapping[str, str] | None = None
    ) -> None:
        shape, last = shape_of(model), prices or {}
        self._books = [BookGenerator(exchange, symbol, book, venue, shape, seed, last.get(symbol)) for symbol, book in venue.books.items()]
        total = sum(book.share for book in venue.books.values())
        self._shares = [book.share / total for book in venue.books.values()]
        self._queue: list[tuple[int, int]] = []
        """(start of its next group, place of the book)"""
        self._ready: list[tuple[int, int, Planned]] = []
        """(due, count, message): the count keeps messages in order that are due together."""
        self._count = 0
        self.set_rate(rate, pattern, 0)

    def set_rate(self, rate: float, pattern: Pattern, now_us: int) -> None:
        """From `now_us` of this source's clock on: `rate` trades per second over all books, changing by `pattern`."""
        self.rate, self.pattern, self._since_us = rate, pattern, now_us
        self._queue = []
        if rate > 0:
            self._queue = [(now_us + self._gap(place, now_us), place) for place in range(len(self._books))]
            heapq.heapify(self._queue)

    def _gap(self, place: int, now_us: int) -> int:
        rate = self.rate * self._shares[place] * factor(self.pattern, (now_us - self._since_us) / 1e6)
        return math.ceil(self._books[place].gap_us(rate))

    def next_due(self) -> int | None:
        # A group that begins later than the first message is due cannot have an earlier one.
        while self._queue and not (self._ready and self._ready[0][0] < self._queue[0][0]):
            start_us, place = self._queue[0]
            for planned in self._books[place].group(start_us):
                heapq.heappush(self._ready, (planned.due_us, self._count, planned))
                self._count += 1
            heapq.heapreplace(self._queue, (start_us + self._gap(place, start_us), place))
        return self._ready[0][0] if self._ready else None

    def take(self) -> Planned:
        self.next_due()
        return heapq.heappop(self._ready)[2]
