"""Kraken: com.k2.marketdata.raw.KrakenRawTrade, which holds both v1 and v2 trades."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as f

from decoders.base import Trade
from expressions import canonical_asset, known_quote, micros_of_seconds

TRADE_FIELDS = ("price", "volume", "timestamp", "side", "order_type", "misc", "pair", "message_index")
"""All that tells one v1 trade from another; the rest of the record is how it travelled."""


def decode(record: Column) -> Trade:
    """A KrakenRawTrade in our terms."""
    pair = record["pair"]
    base = canonical_asset(f.substring_index(pair, "/", 1))
    quote = canonical_asset(f.when(pair.contains("/"), f.substring_index(pair, "/", -1)))
    return Trade(
        trade_id=f.concat(f.lit("KRAKEN-"), f.coalesce(record["trade_id"].cast("string"), _fingerprint(record))),
        symbol=f.when(f.trim(base) != "", f.concat(base, f.coalesce(quote, f.lit("")))),
        currency=known_quote(quote),
        price=record["price"],
        quantity=record["volume"],
        timestamp=micros_of_seconds(record["timestamp"]),
        side=f.when(record["side"] == "b", f.lit("BUY")).when(record["side"] == "s", f.lit("SELL")).otherwise(f.lit("UNKNOWN")),
        trade_conditions=f.array(
            f.when(record["order_type"] == "l", f.lit("limit")).when(record["order_type"] == "m", f.lit("market")).otherwise(record["order_type"])
        ),
        source_sequence=record["trade_id"],
        ingestion_timestamp=record["ingestion_timestamp"],
        vendor_data=f.to_json(f.struct(*(record[name].alias(name) for name in ("channel_id", "order_type", "misc", "pair")))),
    )


def _fingerprint(record: Column) -> Column:
    """The identity of a v1 trade, which has no id: its time, and a hash of all its fields and its place in the message."""
    fields = f.concat_ws("|", *(record[name].cast("string") for name in TRADE_FIELDS))
    return f.concat(record["timestamp"], f.lit("-"), f.substring(f.md5(fields.cast("binary")), 1, 16))
