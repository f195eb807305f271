"""Kraken's side of the v1 trade channel."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

from k2.feeds.simulator.dialect import Change, Subscriptions
from k2.feeds.simulator.message import Message
from k2.feeds.trades import Trade, plain, to_kraken_v1, to_kraken_v2

PRICE_DECIMALS, VOLUME_DECIMALS = 5, 8


class KrakenV1Dialect:
    name = "kraken_v1"
    exchange = "kraken"
    changes = frozenset({Change.ADD_FIELDS})

    def __init__(self, *, snapshots: bool) -> None:
        self._snapshots = snapshots
        """v1's documentation promises the latest trades on subscribing; recorded sessions had none."""

    def welcome(self, path: str, subscriptions: Subscriptions) -> list[str]:
        return [json.dumps({"connectionID": 12257565262583683815, "event": "systemStatus", "status": "online", "version": "1.9.6"})]

    def answer(self, text: str, subscriptions: Subscriptions) -> list[str]:
        try:
            request = json.loads(text)
            event = request["event"]
        except (ValueError, KeyError, TypeError):
            return [json.dumps({"errorMessage": "Malformed request", "event": "error"})]
        number = {"reqid": request["reqid"]} if "reqid" in request else {}
        if event == "ping":
            return [json.dumps({"event": "pong"} | number)]
        if event not in ("subscribe", "unsubscribe"):
            return [json.dumps({"errorMessage": "Unsupported event", "event": "error"} | number)]
        name = (request.get("subscription") or {}).get("name")
        if name != "trade":
            return [json.dumps({"errorMessage": "Subscription name invalid", "event": "subscriptionStatus", "status": "error"} | number)]
        return [json.dumps(self._status(event, pair, subscriptions) | number) for pair in request.get("pair", [])]

    def _status(self, event: str, pair: str, subscriptions: Subscriptions) -> dict[str, Any]:
        symbol, about = to_kraken_v2(pair), {"event": "subscriptionStatus", "subscription": {"name": "trade"}}
        if symbol not in subscriptions.offered:
            return about | {"errorMessage": f"Currency pair not supported {pair}", "pair": pair, "status": "error"}
        if event == "subscribe":
            subscriptions.symbols.add(symbol)
            if self._snapshots:
                subscriptions.snapshot_of.append(symbol)
        else:
            subscriptions.symbols.discard(symbol)
        return about | {"channelID": _channel(symbol), "channelName": "trade", "pair": to_kraken_v1(symbol), "status": f"{event}d"}

    def trades(self, message: Message, change: Change | None) -> str:
        more = ["", {"venue": 1}] if change is Change.ADD_FIELDS else []
        return self._frame(message.trades, more)

    def _frame(self, trades: Sequence[Trade], more: list[Any]) -> str:
        rows = [[_padded(t.price, PRICE_DECIMALS), _padded(t.quantity, VOLUME_DECIMALS), _seconds(t.time_us), t.side, t.order_type, "", *more] for t in trades]
        symbol = trades[0].symbol
        return json.dumps([_channel(symbol), rows, "trade", to_kraken_v1(symbol)], separators=(",", ":"))

    def snapshot(self, messages: Sequence[Message]) -> str | None:
        trades = [t for message in messages for t in message.trades]
        return self._frame(trades, []) if self._snapshots and trades else None

    def heartbeat(self) -> str | None:
        return '{"event":"heartbeat"}'


def _channel(symbol: str) -> int:
    return zlib.crc32(symbol.encode()) % 10_000


def _seconds(time_us: int) -> str:
    return f"{time_us // 1_000_000}.{time_us % 1_000_000:06d}"


def _padded(number: str, decimals: int) -> str:
    whole, _, part = (plain(number) if "e" in number.lower() else number).partition(".")
    return f"{whole}.{part:0<{decimals}}"
