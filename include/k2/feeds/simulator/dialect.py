"""What the simulator must know of a websocket protocol in order to speak it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from k2.feeds.simulator.message import Message


class Change(StrEnum):
    """A change of the messages' shape, as exchanges make them without notice."""

    ADD_FIELDS = "add_fields"
    """Fields that no reader knows."""
    ORDER_IDS = "order_ids"
    """Binance's `b` and `a`, which spot messages had until 2023."""
    FUTURES = "futures"
    """Binance's `X` instead of `M`, as its futures streams have it."""


@dataclass
class Subscriptions:
    """What one connection has asked for, in the market's names of the books."""

    offered: Collection[str]
    symbols: set[str] = field(default_factory=set)
    snapshot_of: list[str] = field(default_factory=list)
    """Books whose latest trades are to be sent once, after the answer."""


class Dialect(Protocol):
    """One protocol. Nothing here does I/O; texts are whole frames."""

    name: str
    exchange: str
    changes: frozenset[Change]

    def welcome(self, path: str, subscriptions: Subscriptions) -> list[str]:
        """What a client hears first. The path may subscribe."""

    def answer(self, text: str, subscriptions: Subscriptions) -> list[str]:
        """What a client's frame is answered with."""

    def trades(self, message: Message, change: Change | None) -> str:
        """A message of trades."""

    def snapshot(self, messages: Sequence[Message]) -> str | None:
        """The latest trades of a book on subscribing; None where the protocol has none."""

    def heartbeat(self) -> str | None:
        """What is sent each second to whoever has subscribed."""


def iso(time_us: int) -> str:
    """2022-06-13T08:09:10.123456Z"""
    seconds, part = divmod(time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{part:06d}Z"


def now_iso() -> str:
    return iso(time.time_ns() // 1000)
