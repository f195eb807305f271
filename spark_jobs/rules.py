"""The one classification: a record of Bronze is a valid trade, or the first rule that it breaks says why not.

Validity depends on the Bronze row alone: the record's Kafka timestamp is the clock, so a replay judges as before.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as f

from decoders.base import Trade
from expressions import amount_fault

SKEW_MICROS = 60 * 1_000_000
"""Exchange and feed handler disagree about the time by seconds."""
MAX_AGE_MICROS = 365 * 24 * 3600 * 1_000_000

POISON_SKIPPED = "poison_skipped"
"""Not asked of a record but decided by a person: decoding it made the query fail."""
ERROR_TYPES = {
    POISON_SKIPPED: "poison",
    "value_is_null": "deserialization",
    "framing_invalid": "deserialization",
    "schema_unknown": "deserialization",
    "schema_foreign": "deserialization",
    "deserialization_failed_or_null_fields": "deserialization",
    "price_not_a_number": "price_validation",
    "price_must_be_positive": "price_validation",
    "price_too_large": "price_validation",
    "price_too_precise": "price_validation",
    "quantity_not_a_number": "quantity_validation",
    "quantity_must_be_positive": "quantity_validation",
    "quantity_too_large": "quantity_validation",
    "quantity_too_precise": "quantity_validation",
    "symbol_required": "symbol_validation",
    "quote_asset_unknown": "symbol_validation",
    "invalid_side": "side_validation",
    "timestamp_unparsable": "timestamp_validation",
    "timestamp_in_future": "timestamp_validation",
    "timestamp_too_old": "timestamp_validation",
}
"""Every error_reason that the DLQ can hold, with its error_type, in the order in which the rules are asked."""


def trade_fault(trade: Trade, kafka_micros: Column) -> Column:
    """The reason of the first rule that a decoded trade breaks; NULL for a valid trade."""
    return f.coalesce(
        amount_fault("price", trade.price),
        amount_fault("quantity", trade.quantity),
        _unless(f.trim(trade.symbol) != "", "symbol_required"),
        _unless(trade.currency.isNotNull(), "quote_asset_unknown"),
        _unless(trade.side.isin("BUY", "SELL"), "invalid_side"),
        _unless(trade.timestamp.isNotNull(), "timestamp_unparsable"),
        _unless(trade.timestamp < kafka_micros + SKEW_MICROS, "timestamp_in_future"),
        _unless(trade.timestamp > kafka_micros - MAX_AGE_MICROS, "timestamp_too_old"),
    )


def error_type(reason: Column) -> Column:
    """The class of an error reason."""
    types = f.when(f.lit(False), reason)
    for name, kind in ERROR_TYPES.items():
        types = types.when(reason == name, f.lit(kind))
    return types


def _unless(holds: Column, reason: str) -> Column:
    """The reason, unless a rule holds. A rule that is NULL does not hold."""
    return f.when(~f.coalesce(holds, f.lit(False)), f.lit(reason))
