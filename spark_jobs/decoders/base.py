"""What every decoder delivers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

from pyspark.sql import Column

from k2.registry.platform import ConfigError


@dataclass(frozen=True)
class Trade:
    """One exchange's trade in our terms. A column is NULL where the record does not say what it should."""

    trade_id: Column
    symbol: Column
    """Base and quote asset; NULL or empty when the record names no base asset."""
    currency: Column
    """Quote asset; NULL when it is not a known one."""
    price: Column
    """As text, so that the rules see what was sent."""
    quantity: Column
    """As text."""
    timestamp: Column
    """Microseconds since the epoch."""
    side: Column
    """BUY, SELL or UNKNOWN: the taker's."""
    trade_conditions: Column
    source_sequence: Column
    ingestion_timestamp: Column
    """Microseconds since the epoch."""
    vendor_data: Column
    """JSON."""


class Decoder(Protocol):
    def decode(self, record: Column) -> Trade: ...


def load_decoder(name: str) -> Decoder:
    """The decoder that platform.yaml names. Raises ConfigError when its module is missing."""
    module = f"decoders.{name}"
    try:
        return cast(Decoder, importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ConfigError(f"decoder {name!r}: spark_jobs/decoders/{name}.py does not exist: write it, or name another decoder in platform.yaml") from None
