"""One trade in the form that every part of the feeds can compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

KRAKEN_V1_ASSETS = {"BTC": "XBT", "DOGE": "XDG"}
"""Assets that Kraken's v1 websocket names differently from v2: v2 name -> v1 name."""

_KRAKEN_V2_ASSETS = {v1: v2 for v2, v1 in KRAKEN_V1_ASSETS.items()}


@dataclass(frozen=True, slots=True)
class Trade:
    """One trade. Price and quantity are decimal texts; side (b or s) and order type (l or m, None from Binance) are the taker's."""

    exchange: str
    symbol: str
    id: int | None
    price: str
    quantity: str
    side: str
    order_type: str | None
    time_us: int


def to_kraken_v1(pair: str) -> str:
    """A v2 pair under its v1 name: BTC/USD -> XBT/USD."""
    return "/".join(KRAKEN_V1_ASSETS.get(asset, asset) for asset in pair.split("/"))


def to_kraken_v2(pair: str) -> str:
    """A v1 pair under its v2 name: XBT/USD -> BTC/USD."""
    return "/".join(_KRAKEN_V2_ASSETS.get(asset, asset) for asset in pair.split("/"))


def plain(number: str) -> str:
    """One spelling per value: 58721.20000 -> 58721.2, 5e-07 -> 0.0000005. Raises decimal.InvalidOperation."""
    return format(Decimal(number).normalize(), "f")


def micros(seconds: str) -> int:
    """µs since the epoch of a text like 1617666461.465618. Raises decimal.InvalidOperation."""
    return int(Decimal(seconds) * 1_000_000)


def trade_of_record(exchange: str, record: Mapping[str, Any]) -> Trade:
    """The trade in a decoded record of the exchange's raw topic; a Kraken v1 pair comes back under its v2 name."""
    if "trade_time_ms" in record:
        side = "s" if record["is_buyer_maker"] else "b"
        return Trade(exchange, record["symbol"], record["trade_id"], record["price"], record["quantity"], side, None, record["trade_time_ms"] * 1000)
    return Trade(
        exchange,
        to_kraken_v2(record["pair"]),
        record["trade_id"],
        record["price"],
        record["volume"],
        record["side"],
        record["order_type"],
        micros(record["timestamp"]),
    )
