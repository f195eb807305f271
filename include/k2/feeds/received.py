"""The trades that Kafka and Silver hold, and their audit against the simulator's truth."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from k2.catalog import open_table
from k2.feeds.audit import Audit, audit
from k2.feeds.simulator.truth import read_truth
from k2.feeds.trades import Trade, trade_of_record
from k2.registry.platform import Exchange, Layer
from k2.registry.runtime import Runtime

MAGIC = 0
SIDES = {"BUY": "b", "SELL": "s"}
ORDER_TYPES = {"limit": "l", "market": "m"}


def decoder(runtime: Runtime, topic_schema: str) -> Callable[[bytes], dict[str, Any]]:
    """Decodes values of the Confluent wire format by the schema id in each, into the given schema's fields."""
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from fastavro import parse_schema, schemaless_reader

    registry = SchemaRegistryClient({"url": runtime.schema_registry, "timeout": 5})
    reader, writers = parse_schema(json.loads(topic_schema)), {}

    def decode(value: bytes) -> dict[str, Any]:
        if len(value) < 5 or value[0] != MAGIC:
            raise ValueError(f"not in the Confluent wire format: {value[:8]!r}")
        number = int.from_bytes(value[1:5], "big")
        if number not in writers:
            writers[number] = parse_schema(json.loads(registry.get_schema(number).schema_str))
        return schemaless_reader(io.BytesIO(value[5:]), writers[number], reader)

    return decode


def received(runtime: Runtime, name: str, exchange: Exchange | None = None) -> Iterator[Trade]:
    """Every trade that the exchange's topic holds now. Raises ValueError for a record that is no trade of its schema."""
    from k2.reconcile.read import read_topic

    exchange = exchange or runtime.platform.exchanges[name]
    decode = decoder(runtime, exchange.avro_schema())
    for _, _, value in read_topic(runtime, exchange.topic):
        yield trade_of_record(name, decode(value or b""))


def in_silver(runtime: Runtime, name: str) -> Iterator[Trade]:
    """Every trade of the exchange's Silver table, in the terms of the feeds: read back without the rules that decoded it."""
    table = next(t for s in runtime.platform.streams.values() if s.exchange == name for t in s.writes if runtime.platform.tables[t].layer is Layer.SILVER)
    opened = open_table(runtime, table, "reader")
    if opened is None:
        return
    columns = ("symbol", "currency", "source_sequence", "price", "quantity", "side", "trade_conditions", "timestamp")
    for batch in opened.scan(selected_fields=columns).to_arrow_batch_reader():
        for symbol, currency, number, price, quantity, side, conditions, time_us in zip(*(batch[c].to_pylist() for c in columns), strict=True):
            if runtime.platform.exchanges[name].feed.protocol != "binance":
                symbol = f"{symbol.removesuffix(currency)}/{currency}"
            order_type = ORDER_TYPES[conditions[0]] if conditions else None
            yield Trade(name, symbol, number, str(price), str(quantity), SIDES[side], order_type, time_us)


def audit_silver(runtime: Runtime, name: str) -> Audit:
    """Silver against the truth: every trade, by id, price, quantity, side, order type and time."""
    truth = read_truth(runtime.home / "data" / "simulator", name)
    return audit(truth, in_silver(runtime, name), runtime.platform.exchanges[name].feed.protocol)


def audit_exchange(runtime: Runtime, name: str, exchange: Exchange | None = None) -> Audit:
    """Kafka against the truth, by the registry's entry of the exchange. Pause the market first: what is on its way counts as missing."""
    exchange = exchange or runtime.platform.exchanges[name]
    truth = read_truth(runtime.home / "data" / "simulator", name)
    return audit(truth, received(runtime, name, exchange), exchange.feed.protocol)
