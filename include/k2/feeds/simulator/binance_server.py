"""Binance's side of the combined trade streams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from k2.feeds.simulator.dialect import Change, Subscriptions
from k2.feeds.simulator.message import Message


class BinanceDialect:
    name = "binance"
    exchange = "binance"
    changes = frozenset(Change)

    def welcome(self, path: str, subscriptions: Subscriptions) -> list[str]:
        """Nothing is said. A stream of a symbol that does not exist is accepted and stays silent, as on the exchange."""
        streams = parse_qs(urlsplit(path).query).get("streams", [""])[0]
        subscriptions.symbols |= _symbols(streams.split("/"))
        return []

    def answer(self, text: str, subscriptions: Subscriptions) -> list[str]:
        try:
            request = json.loads(text)
            method, number = request["method"], request.get("id")
            symbols = _symbols(request.get("params", []))
        except (ValueError, KeyError, TypeError, AttributeError):
            return [json.dumps({"error": {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}})]
        if method == "SUBSCRIBE":
            subscriptions.symbols |= symbols
        elif method == "UNSUBSCRIBE":
            subscriptions.symbols -= symbols
        elif method == "LIST_SUBSCRIPTIONS":
            return [json.dumps({"result": sorted(f"{s.lower()}@trade" for s in subscriptions.symbols), "id": number})]
        else:
            return [json.dumps({"error": {"code": 2, "msg": f"Invalid request: unknown variant `{method}`"}, "id": number})]
        return [json.dumps({"result": None, "id": number})]

    def trades(self, message: Message, change: Change | None) -> str:
        (trade,) = message.trades
        data = {
            "e": "trade",
            "E": message.event_us // 1000,
            "s": trade.symbol,
            "t": trade.id,
            "p": trade.price,
            "q": trade.quantity,
        }
        if change is Change.ORDER_IDS:
            data |= {"b": 2 * (trade.id or 0), "a": 2 * (trade.id or 0) + 1}
        data |= {"T": trade.time_us // 1000, "m": trade.side == "s"}
        data |= {"X": "MARKET"} if change is Change.FUTURES else {"M": True}
        if change is Change.ADD_FIELDS:
            data |= {"st": 0, "venue": {"name": "spot", "shard": 7}, "tags": ["a", None]}
        return json.dumps({"stream": f"{trade.symbol.lower()}@trade", "data": data}, separators=(",", ":"))

    def snapshot(self, messages: Sequence[Message]) -> str | None:
        return None

    def heartbeat(self) -> str | None:
        return None


def _symbols(streams: Sequence[str]) -> set[str]:
    return {stream.removesuffix("@trade").upper() for stream in streams if stream.endswith("@trade")}
