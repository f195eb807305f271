"""Kraken's v2 trade channel, mapped onto the fields of v1; `trade_id` is a sequence per book."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from k2.feeds.protocol import MalformedFrame, Parsed, Protocol, each_trade, loads, number_text

_SIDES = {"buy": "b", "sell": "s"}
_ORDER_TYPES = {"limit": "l", "market": "m"}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z")


def url(root: str, symbols: Sequence[str]) -> str:
    return root


def hello(symbols: Sequence[str]) -> list[str]:
    """No snapshot: it would repeat the last 50 trades at each reconnect."""
    params = {"channel": "trade", "symbol": list(symbols), "snapshot": False}
    return [json.dumps({"method": "subscribe", "params": params, "req_id": 1})]


@functools.lru_cache(maxsize=64)
def _epoch_seconds(second: str) -> int:
    return int(datetime.fromisoformat(second + "+00:00").timestamp())


def seconds_micros(timestamp: Any) -> str:
    """2023-09-25T07:49:37.7087Z -> 1695628177.708700. Digits below the microsecond are cut off. Raises MalformedFrame."""
    match = _TIME.fullmatch(timestamp) if isinstance(timestamp, str) else None
    if match is None:
        raise MalformedFrame(f"timestamp {timestamp!r} is not like 2023-09-25T07:49:37.708706Z")
    second, fraction = match.groups()
    try:
        return f"{_epoch_seconds(second)}.{(fraction or '')[:6]:0<6}"
    except ValueError as error:
        raise MalformedFrame(f"timestamp {timestamp!r}: {error}") from None


def _record(index: int, trade: Any, received_us: int) -> dict[str, Any]:
    if not isinstance(trade, dict):
        raise MalformedFrame("not an object")
    side, order_type = trade.get("side"), trade.get("ord_type")
    return {
        "channel_id": 0,
        "price": number_text(trade.get("price")),
        "volume": number_text(trade.get("qty")),
        "timestamp": seconds_micros(trade.get("timestamp")),
        "side": _SIDES.get(side, side) if isinstance(side, str) else side,
        "order_type": _ORDER_TYPES.get(order_type, order_type) if isinstance(order_type, str) else order_type,
        "misc": "",
        "pair": trade.get("symbol"),
        "ingestion_timestamp": received_us,
        "trade_id": trade.get("trade_id"),
        "message_index": index,
    }


def parse(text: str, received_us: int) -> Parsed:
    message = loads(text)
    if not isinstance(message, dict):
        raise MalformedFrame("not an object")
    if "method" in message or "error" in message:
        # Refusals carry their symbol at the top level and no result.
        return Parsed(event=str(message.get("method", "error")), refused=text if message.get("success") is False or "error" in message else None)
    channel = message.get("channel")
    if not isinstance(channel, str):
        raise MalformedFrame("neither `method` nor `channel` in it")
    if channel != "trade":
        return Parsed(event=channel)
    data = message.get("data")
    if not isinstance(data, list):
        raise MalformedFrame("`data` is not a list of trades")
    return each_trade(data, lambda index, trade: _record(index, trade, received_us))


PROTOCOL = Protocol(url, hello, parse, key="pair")
