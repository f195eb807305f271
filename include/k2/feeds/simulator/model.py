"""The numbers that make the generator behave like the recorded market, and the books that it plays."""

from __future__ import annotations

import bisect
import math
from pathlib import Path

import yaml
from pydantic import Field, PositiveInt, model_validator

from k2.registry.files import CONFIG_DIR
from k2.registry.platform import ConfigError, Model

PROBABILITIES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 1.0)
"""Where a distribution's quantiles are kept: dense in the upper tail, where bursts and long gaps are."""


class Quantiles:
    """A distribution by its quantiles at PROBABILITIES; between two of them it is geometric where both are positive."""

    def __init__(self, values: tuple[float, ...]) -> None:
        self._values = values

    def at(self, probability: float) -> float:
        place = min(max(bisect.bisect_right(PROBABILITIES, probability), 1), len(PROBABILITIES) - 1)
        low, high = PROBABILITIES[place - 1], PROBABILITIES[place]
        part = (probability - low) / (high - low)
        a, b = self._values[place - 1], self._values[place]
        if a > 0 and b > 0:
            return a * math.exp(part * math.log(b / a))
        return a + (b - a) * part

    def whole(self, probability: float) -> int:
        return math.floor(self.at(probability) + 0.5)

    def mean(self) -> float:
        """The mean of what `at` gives."""
        parts = zip(PROBABILITIES, PROBABILITIES[1:], self._values, self._values[1:], strict=False)
        return math.fsum((high - low) * ((b - a) / math.log(b / a) if 0 < a < b else (a + b) / 2) for low, high, a, b in parts)

    def whole_mean(self) -> float:
        """The mean of what `whole` gives, by 500 places between each two quantiles."""
        parts = zip(PROBABILITIES, PROBABILITIES[1:], strict=False)
        return math.fsum((high - low) * self.whole(low + (high - low) * (i + 0.5) / 500) / 500 for low, high in parts for i in range(500))


class BookModel(Model):
    """How trades come on one exchange. Lists without a key of their own are quantiles at PROBABILITIES.

    A group is one taker's sweep: trades of one side in the same instant (Binance) or the same message (Kraken).
    """

    trades_per_second: float = Field(gt=0)
    """As recorded; the generator's own rate is a setting."""
    message_per_trade: bool
    time_unit_us: PositiveInt
    """The exchange's clock: 1000 where it says milliseconds."""
    gap_us: tuple[float, ...]
    """Between the first trades of successive groups."""
    gap_memory: float = Field(gt=-1, lt=1)
    """Correlation of successive gaps (of their normal scores): busy moments come together."""
    group_size: tuple[float, ...]
    inner_gap_us: tuple[float, ...]
    """Between successive trades of one group."""
    delay_us: tuple[float, ...]
    """From a trade to its message."""
    quantity: tuple[float, ...]
    popular_quantities: tuple[tuple[float, float], ...]
    """[quantity, share of all trades]; the quantiles describe the others."""
    reference_price: float = Field(gt=0)
    """Median price; another book's quantities are scaled to the same money, its price steps to the same part of the price."""
    tick: float = Field(gt=0)
    moved_share: float = Field(ge=0, le=1)
    """Share of groups whose first price differs from the price before."""
    step_ticks: tuple[float, ...]
    """Size of that difference."""
    inner_moved_share: float = Field(ge=0, le=1)
    inner_step_ticks: tuple[float, ...]
    """The same between the trades of a group; it goes with the taker's side."""
    buy_share: float = Field(gt=0, lt=1)
    same_side_share: float = Field(ge=0, le=1)
    """Share of groups on the side of the group before."""
    market_order_share: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _quantiles_are_complete(self) -> BookModel:
        for name in ("gap_us", "group_size", "inner_gap_us", "delay_us", "quantity", "step_ticks", "inner_step_ticks"):
            values = getattr(self, name)
            if len(values) != len(PROBABILITIES) or list(values) != sorted(values) or values[0] < 0:
                raise ValueError(f"{name} must hold {len(PROBABILITIES)} rising quantiles from 0 up: fit again with python -m k2.feeds.fit")
        return self


class Book(Model):
    """One symbol that the generator trades."""

    first_price: float = Field(gt=0)
    price_decimals: int = Field(ge=0, le=10)
    quantity_decimals: int = Field(ge=0, le=8)
    share: float = Field(gt=0)
    """Of the exchange's rate, relative to its other books."""
    first_id: PositiveInt


class Venue(Model):
    rate: float = Field(ge=0)
    """Trades per second of all books together."""
    price_text_decimals: int | None = None
    """Decimals that the exchange pads prices to; None = those of the book."""
    quantity_text_decimals: int
    books: dict[str, Book] = Field(min_length=1)


class Market(Model):
    """include/config/market.yaml."""

    exchanges: dict[str, Venue]


class MarketModel(Model):
    """include/config/market_model.yaml, as `python -m k2.feeds.fit` writes it."""

    exchanges: dict[str, BookModel]


def _load(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path.name}: {error}") from error


def load_market() -> Market:
    """The books that the generator plays. Raises ConfigError."""
    return _load(CONFIG_DIR / "market.yaml", Market)


def load_market_model() -> MarketModel:
    """The fitted numbers. Raises ConfigError."""
    return _load(CONFIG_DIR / "market_model.yaml", MarketModel)
