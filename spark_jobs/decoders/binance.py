"""Binance: com.k2.marketdata.raw.BinanceRawTrade."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as f

from decoders.base import Trade
from expressions import micros_of_millis, quote_suffix


def decode(record: Column) -> Trade:
    """A BinanceRawTrade in our terms."""
    symbol = record["symbol"]
    return Trade(
        trade_id=f.concat(f.lit("BINANCE-"), record["trade_id"].cast("string")),
        symbol=symbol,
        currency=quote_suffix(symbol),
        price=record["price"],
        quantity=record["quantity"],
        timestamp=micros_of_millis(record["trade_time_ms"]),
        side=f.when(record["is_buyer_maker"], f.lit("SELL")).otherwise(f.lit("BUY")),  # the buyer made the price, so the taker sold
        trade_conditions=f.array().cast("array<string>"),
        source_sequence=record["trade_id"],
        ingestion_timestamp=record["ingestion_timestamp"],
        vendor_data=f.to_json(f.struct(*(record[name].alias(name) for name in ("event_type", "event_time_ms", "is_buyer_maker", "is_best_match")))),
    )
