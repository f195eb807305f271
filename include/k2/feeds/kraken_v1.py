"""Kraken's v1 trade channel: a list of trades per message, no trade ids, events as objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from k2.feeds.protocol import MalformedFrame, Parsed, Protocol, each_trade, loads


def url(root: str, symbols: Sequence[str]) -> str:
    return root


def hello(symbols: Sequence[str]) -> list[str]:
    return [json.dumps({"event": "subscribe", "pair": list(symbols), "subscription": {"name": "trade"}})]


def _record(channel: int, pair: str, index: int, trade: Any, received_us: int) -> dict[str, Any]:
    if not isinstance(trade, list) or len(trade) < 6:
        raise MalformedFrame("not [price, volume, time, side, order type, misc]")
    price, volume, timestamp, side, order_type, misc = trade[:6]
    return {
        "channel_id": channel,
        "price": price,
        "volume": volume,
        "timestamp": timestamp,
        "side": side,
        "order_type": order_type,
        "misc": misc,
        "pair": pair,
        "ingestion_timestamp": received_us,
        "trade_id": None,
        "message_index": index,
    }


def parse(text: str, received_us: int) -> Parsed:
    message = loads(text)
    if isinstance(message, dict):
        event = message.get("event")
        if not isinstance(event, str):
            raise MalformedFrame("an object without `event`")
        refused = message.get("status") == "error" or event == "error"
        return Parsed(event=event, refused=text if refused else None)
    if not isinstance(message, list) or len(message) < 4:
        raise MalformedFrame("not [channel, trades, channel name, pair]")
    channel, trades, name, pair = message[0], message[1], message[-2], message[-1]
    if name != "trade":
        return Parsed(event=str(name))
    if not isinstance(trades, list):
        raise MalformedFrame("element 1 is not a list of trades")
    return each_trade(trades, lambda index, trade: _record(channel, pair, index, trade, received_us))


PROTOCOL = Protocol(url, hello, parse, key="pair")
