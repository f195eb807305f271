"""Binance's combined trade streams: one trade per message, ids dense per symbol."""

from __future__ import annotations

from collections.abc import Sequence

from k2.feeds.protocol import MalformedFrame, Parsed, Protocol, loads


def url(root: str, symbols: Sequence[str]) -> str:
    return f"{root.rstrip('/')}/stream?streams=" + "/".join(f"{symbol.lower()}@trade" for symbol in symbols)


def hello(symbols: Sequence[str]) -> list[str]:
    """Nothing: the address names the streams."""
    return []


def parse(text: str, received_us: int) -> Parsed:
    message = loads(text)
    if not isinstance(message, dict):
        raise MalformedFrame("not an object")
    data = message.get("data")
    if "stream" not in message:
        if "error" in message or ("code" in message and "msg" in message):
            return Parsed(event="error", refused=text)
        if "result" in message:
            return Parsed(event="result")
        raise MalformedFrame("neither `stream` nor `result` in it")
    if not isinstance(data, dict):
        raise MalformedFrame("`data` is not an object")
    if data.get("e") != "trade":
        return Parsed(event=str(data.get("e")))
    record = {
        "event_type": data.get("e"),
        "event_time_ms": data.get("E"),
        "symbol": data.get("s"),
        "trade_id": data.get("t"),
        "price": data.get("p"),
        "quantity": data.get("q"),
        "trade_time_ms": data.get("T"),
        "is_buyer_maker": data.get("m"),
        "is_best_match": data.get("M"),
        "ingestion_timestamp": received_us,
    }
    return Parsed(records=(record,))


PROTOCOL = Protocol(url, hello, parse, key="symbol")
