"""The trades that Kafka and Silver hold, and their audit against the simulator's truth."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from k2.catalog import open_table
from k2.feeds.simulator.truth import truth_files
from k2.feeds.trades import Trade, trade_of_record
from k2.registry.platform import Exchange, Layer
from k2.registry.runtime import Runtime

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.feeds.audit import Audit

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


def in_silver(runtime: Runtime, name: str) -> pa.Table:
    """Every trade of the exchange's Silver table, in the terms of the feeds: read back without the rules that decoded it."""
    import pyarrow as pa

    from k2.feeds.columns import TRADE

    table = next(t for s in runtime.platform.streams.values() if s.exchange == name for t in s.writes if runtime.platform.tables[t].layer is Layer.SILVER)
    opened = open_table(runtime, table, "reader")
    binance = runtime.platform.exchanges[name].feed.protocol == "binance"
    read = ("symbol", "currency", "source_sequence", "price", "quantity", "side", "trade_conditions", "timestamp")
    pieces = (opened.scan(selected_fields=read).to_arrow_batch_reader() if opened else ()) or ()
    return pa.Table.from_batches((_as_trades(name, batch, binance) for batch in pieces), schema=TRADE)


def _as_trades(exchange: str, batch: pa.RecordBatch, binance: bool) -> pa.RecordBatch:
    """A piece of Silver in the terms of the feeds. Raises ValueError for a side or an order type that no feed has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from k2.feeds.columns import TRADE

    symbol, currency = (batch[n].cast(pa.string()) for n in ("symbol", "currency"))
    if not binance:
        base = symbol
        # Every currency of a piece is cut off once: there are a handful.
        for ending in pc.unique(currency).to_pylist():
            base = pc.if_else(pc.equal(currency, ending), pc.replace_substring_regex(base, pattern=f"{re.escape(ending)}$", replacement=""), base)
        symbol = pc.binary_join_element_wise(base, currency, "/")
    first_condition = pc.list_slice(batch["trade_conditions"], 0, 1, return_fixed_size_list=True)  # null where there is none
    columns = {
        "exchange": pa.array([exchange]).take(pa.array([0] * len(batch), pa.int64())),
        "symbol": symbol,
        "id": batch["source_sequence"],
        "price": batch["price"].cast(pa.string()),
        "quantity": batch["quantity"].cast(pa.string()),
        "side": _named(batch["side"].cast(pa.string()), SIDES),
        "order_type": _named(pc.list_element(first_condition, 0), ORDER_TYPES),
        "time_us": batch["timestamp"],
    }
    return pa.RecordBatch.from_pydict(columns, schema=TRADE)


def _named(values: pa.Array, names: Mapping[str, str]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = values.cast(pa.string())
    at = pc.index_in(values, pa.array(list(names)))
    if at.null_count > values.null_count:
        raise ValueError(f"Silver holds {pc.unique(values).to_pylist()}, of which only {', '.join(names)} are known")
    return pa.array(list(names.values())).take(at)


def audit_silver(runtime: Runtime, name: str) -> Audit:
    """Silver against the truth: every trade, by id, price, quantity, side, order type and time."""
    return _audit(runtime, name, in_silver(runtime, name), runtime.platform.exchanges[name])


def audit_exchange(runtime: Runtime, name: str, exchange: Exchange | None = None) -> Audit:
    """Kafka against the truth, by the registry's entry of the exchange. Pause the market first: what is on its way counts as missing."""
    from k2.feeds.columns import of_trades

    exchange = exchange or runtime.platform.exchanges[name]
    return _audit(runtime, name, of_trades(received(runtime, name, exchange)), exchange)


def _audit(runtime: Runtime, name: str, found: pa.Table, exchange: Exchange) -> Audit:
    from k2.feeds.audit import compare
    from k2.feeds.columns import read_lines

    return compare(read_lines(truth_files(runtime.home / "data" / "simulator", name)), found, exchange.feed.protocol)
