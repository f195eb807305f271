"""Kraken's side of the v2 trade channel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from k2.feeds.simulator.dialect import Change, Subscriptions, iso, now_iso
from k2.feeds.simulator.message import Message
from k2.feeds.trades import Trade

_SIDES = {"b": "buy", "s": "sell"}
_ORDER_TYPES = {"l": "limit", "m": "market"}
SNAPSHOT_TRADES = 50


class KrakenV2Dialect:
    name = "kraken_v2"
    exchange = "kraken"
    changes = frozenset({Change.ADD_FIELDS})

    def welcome(self, path: str, subscriptions: Subscriptions) -> list[str]:
        data = {
            "version": "2.0.10",
            "system": "online",
            "api_version": "v2",
            "connection_id": 8628615390848610000,
            "upcoming_maintenance": [],
            "emergency": False,
        }
        return [json.dumps({"channel": "status", "type": "update", "data": [data]})]

    def answer(self, text: str, subscriptions: Subscriptions) -> list[str]:
        came = now_iso()
        try:
            request = json.loads(text)
            method, params = request["method"], request.get("params") or {}
        except (ValueError, KeyError, TypeError):
            return [json.dumps({"error": "Malformed request", "success": False, "time_in": came, "time_out": now_iso()})]
        frame = {"method": method} | ({"req_id": request["req_id"]} if "req_id" in request else {})
        if method == "ping":
            return [json.dumps({**frame, "method": "pong", "time_in": came, "time_out": now_iso()})]
        if method not in ("subscribe", "unsubscribe") or params.get("channel") != "trade":
            what = "Channel not supported" if method in ("subscribe", "unsubscribe") else "Unknown method"
            return [json.dumps({**frame, "error": what, "success": False, "time_in": came, "time_out": now_iso()})]
        snapshot = params.get("snapshot", True)
        return [
            json.dumps({**frame, **self._result(method, symbol, snapshot, subscriptions), "time_in": came, "time_out": now_iso()})
            for symbol in params.get("symbol", [])
        ]

    def _result(self, method: str, symbol: str, snapshot: bool, subscriptions: Subscriptions) -> dict[str, Any]:
        if symbol not in subscriptions.offered:
            return {"error": f"Currency pair not supported {symbol}", "success": False, "symbol": symbol}
        if method == "subscribe":
            subscriptions.symbols.add(symbol)
            if snapshot:
                subscriptions.snapshot_of.append(symbol)
        else:
            subscriptions.symbols.discard(symbol)
        return {"result": {"channel": "trade", "symbol": symbol} | ({"snapshot": snapshot} if method == "subscribe" else {}), "success": True}

    def trades(self, message: Message, change: Change | None) -> str:
        return self._frame("update", message.trades, change)

    def snapshot(self, messages: Sequence[Message]) -> str | None:
        trades = [t for message in messages for t in message.trades][-SNAPSHOT_TRADES:]
        return self._frame("snapshot", trades, None) if trades else None

    def _frame(self, kind: str, trades: Sequence[Trade], change: Change | None) -> str:
        new = change is Change.ADD_FIELDS
        rows = ",".join(_row(t, ',"liquidity":{"maker":1,"ids":[1,2]},"flags":null' if new else "") for t in trades)
        more = f',"sequence":{trades[-1].id},"timestamp":"{now_iso()}"' if new else ""
        return f'{{"channel":"trade","type":"{kind}","data":[{rows}]{more}}}'

    def heartbeat(self) -> str | None:
        return '{"channel":"heartbeat"}'


def _row(trade: Trade, more: str) -> str:
    """The numbers are written as the market's own texts: json.dumps would pass them through a float."""
    kind = _ORDER_TYPES[trade.order_type or "l"]
    return (
        f'{{"symbol":"{trade.symbol}","side":"{_SIDES[trade.side]}","price":{trade.price},"qty":{trade.quantity},'
        f'"ord_type":"{kind}","trade_id":{trade.id},"timestamp":"{iso(trade.time_us)}"{more}}}'
    )
