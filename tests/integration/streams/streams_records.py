"""Kafka values to test with: framed Avro, good ones, and one for every reason to refuse a record."""

from __future__ import annotations

import io
import json
import struct
import time
from dataclasses import dataclass
from typing import Any

import fastavro

from k2.registry.files import CONFIG_DIR

NOW_MS = int(time.time()) * 1000 + 123
"""Kafka timestamp of every record here. Kafka deletes records by this time, so it must be a recent one."""
GOOD = None


@dataclass(frozen=True)
class Case:
    """One Kafka record and what must become of it: `reason` is GOOD or the DLQ's error_reason."""

    name: str
    value: bytes | None
    reason: str | None = GOOD
    silver: dict[str, Any] | None = None
    """Columns that a good record must have in Silver."""


def schema_text(exchange: str) -> str:
    return (CONFIG_DIR / "avro" / f"{exchange}_raw_trade.avsc").read_text()


def evolved_schema_text(exchange: str) -> str:
    """The exchange's schema with a field that this platform does not know, in front of all others."""
    schema = json.loads(schema_text(exchange))
    schema["fields"].insert(0, {"name": "venue", "type": "string", "default": ""})
    return json.dumps(schema)


def encode(schema_id: int, schema: str, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    out.write(b"\x00" + struct.pack(">I", schema_id))
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema)), record)
    return out.getvalue()


def binance(**changes: Any) -> dict[str, Any]:
    return {
        "event_type": "trade",
        "event_time_ms": NOW_MS - 3,
        "symbol": "BTCUSDT",
        "trade_id": 3735683259,
        "price": "61837.63000000",
        "quantity": "0.02000000",
        "trade_time_ms": NOW_MS - 5,
        "is_buyer_maker": True,
        "is_best_match": True,
        "ingestion_timestamp": (NOW_MS - 1) * 1000 + 7,
    } | changes


def kraken(**changes: Any) -> dict[str, Any]:
    return {
        "channel_id": 0,
        "price": "95381.70000",
        "volume": "0.00032986",
        "timestamp": f"{NOW_MS // 1000 - 2}.321597",
        "side": "s",
        "order_type": "l",
        "misc": "",
        "pair": "XBT/USD",
        "ingestion_timestamp": (NOW_MS - 1) * 1000 + 7,
        "trade_id": 7001,
        "message_index": 0,
    } | changes


def _framing(schema_id: int, good: bytes) -> list[Case]:
    head = b"\x00" + struct.pack(">I", schema_id)
    return [
        Case("a tombstone", None, "value_is_null"),
        Case("an empty value", b"", "framing_invalid"),
        Case("shorter than a frame", b"\x00\x00\x00\x00", "framing_invalid"),
        Case("a frame without a body", head, "framing_invalid"),
        Case("another magic byte", b"\x01" + good[1:], "framing_invalid"),
        Case("JSON", b'{"e":"trade"}', "framing_invalid"),
        Case("a body cut short", good[:-9], "deserialization_failed_or_null_fields"),
        Case("a body of noise", head + b"\xff" * 40, "deserialization_failed_or_null_fields"),
        Case("a text of two gigabytes announced", head + b"\xe0\xff\xff\xff\x0f" + b"x" * 30, "deserialization_failed_or_null_fields"),
        Case("a schema id beyond 31 bits", b"\x00\xff\xff\xff\xfe" + good[5:], "schema_unknown"),
    ]


def _amounts(price: str, quantity: str, make: Any) -> list[Case]:
    """Both amounts through every fault: each has the name of its column in the exchange's record."""
    faults = {
        "not_a_number": ["", " ", "abc", "NaN", "Infinity", "1,5", "0x10", "1.2.3", "--1", "1e", ".", " 1", "1e9999", "١"],
        "must_be_positive": ["0", "0.00000000", "-1", "-0.00000001", "-1e3", "0e5", "-0"],
        "too_large": ["1" + "0" * 30, "1e30", "9" * 31 + ".5", "0.1e32"],
        "too_precise": ["0.000000001", "1e-9", "1.123456789", "0.1000000001", "12345678901234567890123456789.123456789"],
    }
    cases = []
    for column, name in ((price, "price"), (quantity, "quantity")):
        for fault, texts in faults.items():
            cases += [Case(f"{name} {text!r}", make(**{column: text}), f"{name}_{fault}") for text in texts]
    return cases


def binance_cases(schema_id: int, unknown_id: int, foreign_id: int) -> list[Case]:
    """Every rule of Binance, with the good records around them."""
    schema = schema_text("binance")

    def make(**changes: Any) -> bytes:
        return encode(schema_id, schema, binance(**changes))

    good = make()
    return [
        Case(
            "a plain trade",
            good,
            GOOD,
            {
                "trade_id": "BINANCE-3735683259",
                "symbol": "BTCUSDT",
                "currency": "USDT",
                "price": "61837.63000000",
                "quantity": "0.02000000",
                "side": "SELL",
                "timestamp": (NOW_MS - 5) * 1000,
                "source_sequence": 3735683259,
                "trade_conditions": [],
                "exchange": "BINANCE",
                "schema_id": schema_id,
                "vendor_data": f'{{"event_type":"trade","event_time_ms":{NOW_MS - 3},"is_buyer_maker":true,"is_best_match":true}}',
            },
        ),
        Case("the same trade again", good, GOOD, {"trade_id": "BINANCE-3735683259"}),
        Case("a taker who bought", make(is_buyer_maker=False, is_best_match=None), GOOD, {"side": "BUY"}),
        Case("the longest suffix is the quote", make(symbol="BTCFDUSD"), GOOD, {"symbol": "BTCFDUSD", "currency": "FDUSD"}),
        Case("a quote of three letters", make(symbol="BNBEUR"), GOOD, {"currency": "EUR"}),
        Case("the smallest quantity seen", make(quantity="5e-07"), GOOD, {"quantity": "0.00000050"}),
        Case("the largest amount", make(price="9" * 30 + ".99999999"), GOOD, {"price": "9" * 30 + ".99999999"}),
        Case("zeros behind the eighth decimal", make(price="1.500000000000"), GOOD, {"price": "1.50000000"}),
        Case(
            "an exponent that only moves the point", make(price="1000000000e-9", quantity="+1.5E+2"), GOOD, {"price": "1.00000000", "quantity": "150.00000000"}
        ),
        Case("59 s in the future", make(trade_time_ms=NOW_MS + 59_000), GOOD),
        Case("364 days old", make(trade_time_ms=NOW_MS - 364 * 86_400_000), GOOD),
        *_framing(schema_id, good),
        *_amounts("price", "quantity", make),
        Case("an id that the registry does not know", encode(unknown_id, schema, binance()), "schema_unknown"),
        Case("another record's id", encode(foreign_id, schema, binance()), "schema_foreign"),
        Case("no symbol", make(symbol=""), "symbol_required"),
        Case("a blank symbol", make(symbol="  "), "symbol_required"),
        Case("an unknown quote", make(symbol="BTCXYZ"), "quote_asset_unknown"),
        Case("a quote alone", make(symbol="USDT"), "quote_asset_unknown"),
        Case("a time beyond a BIGINT of microseconds", make(trade_time_ms=2**62), "timestamp_unparsable"),
        Case("61 s in the future", make(trade_time_ms=NOW_MS + 61_000), "timestamp_in_future"),
        Case("366 days old", make(trade_time_ms=NOW_MS - 366 * 86_400_000), "timestamp_too_old"),
        Case("before the epoch", make(trade_time_ms=-5), "timestamp_too_old"),
        Case("the first of two faults names the record", make(price="0", symbol=""), "price_must_be_positive"),
    ]


def kraken_cases(schema_id: int, unknown_id: int, foreign_id: int) -> list[Case]:
    """Every rule of Kraken, with the good records around them."""
    schema = schema_text("kraken")

    def make(**changes: Any) -> bytes:
        return encode(schema_id, schema, kraken(**changes))

    good, seconds = make(), NOW_MS // 1000
    return [
        Case(
            "a v2 trade",
            good,
            GOOD,
            {
                "trade_id": "KRAKEN-7001",
                "symbol": "BTCUSD",
                "currency": "USD",
                "price": "95381.70000000",
                "quantity": "0.00032986",
                "side": "SELL",
                "timestamp": (seconds - 2) * 1_000_000 + 321597,
                "source_sequence": 7001,
                "trade_conditions": ["limit"],
                "exchange": "KRAKEN",
                "schema_id": schema_id,
                "vendor_data": '{"channel_id":0,"order_type":"l","misc":"","pair":"XBT/USD"}',
            },
        ),
        Case("a v1 trade has no sequence", make(trade_id=None), GOOD, {"source_sequence": None}),
        Case("a v1 trade at the same time and price, of another size", make(trade_id=None, volume="7"), GOOD, {"quantity": "7.00000000"}),
        Case("a v1 trade like the first, next in the message", make(trade_id=None, message_index=1), GOOD),
        Case("a taker who bought at the market", make(side="b", order_type="m"), GOOD, {"side": "BUY", "trade_conditions": ["market"]}),
        Case("an order type of its own", make(order_type="x"), GOOD, {"trade_conditions": ["x"]}),
        Case("dogecoin", make(pair="XDG/XBT"), GOOD, {"symbol": "DOGEBTC", "currency": "BTC"}),
        Case("an asset that only contains XBT", make(pair="XBTX/EUR"), GOOD, {"symbol": "XBTXEUR", "currency": "EUR"}),
        Case("a microsecond that a double cannot hold", make(timestamp=f"{seconds - 1}.000001"), GOOD, {"timestamp": (seconds - 1) * 1_000_000 + 1}),
        Case("whole seconds", make(timestamp=str(seconds)), GOOD, {"timestamp": seconds * 1_000_000}),
        Case("zeros behind the microsecond", make(timestamp=f"{seconds}.100000000"), GOOD, {"timestamp": seconds * 1_000_000 + 100_000}),
        *_framing(schema_id, good),
        *_amounts("price", "volume", make),
        Case("an id that the registry does not know", encode(unknown_id, schema, kraken()), "schema_unknown"),
        Case("another record's id", encode(foreign_id, schema, kraken()), "schema_foreign"),
        Case("no pair", make(pair=""), "symbol_required"),
        Case("a pair without a base", make(pair="/USD"), "symbol_required"),
        Case("a pair without a separator", make(pair="XBTUSD"), "quote_asset_unknown"),
        Case("an unknown quote", make(pair="XBT/XYZ"), "quote_asset_unknown"),
        Case("an unknown side", make(side="x"), "invalid_side"),
        Case("no side", make(side=""), "invalid_side"),
        Case("a time that is none", make(timestamp="yesterday"), "timestamp_unparsable"),
        Case("a time finer than a microsecond", make(timestamp=f"{seconds}.1234567"), "timestamp_unparsable"),
        Case("61 s in the future", make(timestamp=f"{seconds + 62}.0"), "timestamp_in_future"),
        Case("366 days old", make(timestamp=f"{seconds - 366 * 86_400}.5"), "timestamp_too_old"),
        Case("the first of two faults names the record", make(side="x", timestamp="0"), "invalid_side"),
    ]
