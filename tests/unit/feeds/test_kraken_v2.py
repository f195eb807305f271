"""The parser of Kraken's v2 trade channel."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from fastavro import parse_schema
from fastavro.validation import validate
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.kraken_v2 import PROTOCOL, parse, seconds_micros
from k2.feeds.protocol import MalformedFrame
from k2.feeds.trades import micros
from k2.registry.platform import load_platform

SCHEMA = parse_schema(json.loads(load_platform().exchanges["kraken"].avro_schema()))


def row(price: str = "58721.2", quantity: str = "0.02798644", more: str = "") -> str:
    return (
        f'{{"symbol":"BTC/USD","side":"sell","price":{price},"qty":{quantity},"ord_type":"market",'
        f'"trade_id":4665906,"timestamp":"2023-09-25T07:49:37.708706Z"{more}}}'
    )


def frame(*rows: str, kind: str = "update") -> str:
    return f'{{"channel":"trade","type":"{kind}","data":[{",".join(rows)}]}}'


def test_message_is_mapped_onto_the_v1_fields() -> None:
    """Side and order type become letters, the time becomes seconds.micros, the pair stays BTC."""
    (record,) = parse(frame(row()), 17).records
    assert record == {
        "channel_id": 0,
        "price": "58721.2",
        "volume": "0.02798644",
        "timestamp": "1695628177.708706",
        "side": "s",
        "order_type": "m",
        "misc": "",
        "pair": "BTC/USD",
        "ingestion_timestamp": 17,
        "trade_id": 4665906,
        "message_index": 0,
    }
    assert validate(record, SCHEMA)


@pytest.mark.parametrize("kind", ["update", "snapshot"])
def test_every_trade_of_a_message(kind: str) -> None:
    """Updates and snapshots alike give all their trades, in order."""
    records = parse(frame(row("1.5"), row("2.5"), row("3.5"), kind=kind), 0).records
    assert [(r["price"], r["message_index"]) for r in records] == [("1.5", 0), ("2.5", 1), ("3.5", 2)]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=0, max_value=10**15))
def test_numbers_keep_their_text(value: Decimal) -> None:
    """A number that no float can hold arrives digit by digit."""
    text = f"{value:f}"
    (record,) = parse(frame(row(price=text, quantity=text)), 0).records
    assert record["price"] == record["volume"] == text


@pytest.mark.parametrize("text", ["5e-07", "1E+3", "58721", "58721.20000"])
def test_unusual_numbers_keep_their_text(text: str) -> None:
    """Exponents, whole numbers and trailing zeros stay as they are."""
    (record,) = parse(frame(row(price=text)), 0).records
    assert record["price"] == text
    assert validate(record, SCHEMA)


@given(st.integers(946_684_800, 4_102_444_800), st.integers(0, 999_999))
def test_times_are_exact(seconds: int, micro: int) -> None:
    """The text in seconds and µs is the same moment, to the µs."""
    text = seconds_micros(f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micro:06d}Z")
    assert text == f"{seconds}.{micro:06d}"
    assert micros(text) == seconds * 1_000_000 + micro


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-09-25T07:49:37Z", "1695628177.000000"),
        ("2023-09-25T07:49:37.7087Z", "1695628177.708700"),
        ("2023-09-25T07:49:37.708706123Z", "1695628177.708706"),
    ],
)
def test_other_precisions(text: str, expected: str) -> None:
    """Missing digits are zeros, digits below the µs are cut."""
    assert seconds_micros(text) == expected


def test_new_fields_are_tolerated() -> None:
    """Unknown fields in the trade change nothing."""
    (record,) = parse(frame(row(more=',"liquidity":{"a":1},"flags":null')), 0).records
    assert validate(record, SCHEMA)


def test_a_broken_trade_does_not_cost_the_others() -> None:
    """A trade whose time cannot be read is a problem; the others arrive."""
    parsed = parse(frame(row("1.5"), row("2.5").replace("2023", "soon"), row("3.5")), 0)
    assert [(r["price"], r["message_index"]) for r in parsed.records] == [("1.5", 0), ("3.5", 2)]
    assert len(parsed.problems) == 1


@pytest.mark.parametrize("missing", ["symbol", "price", "qty", "side", "ord_type"])
def test_a_missing_field_does_not_fit_the_schema(missing: str) -> None:
    """A field that the record needs and the exchange left out is for the schema to refuse."""
    message = json.loads(frame(row()))
    del message["data"][0][missing]
    (record,) = parse(json.dumps(message), 0).records
    assert not validate(record, SCHEMA, raise_errors=False)


def test_unknown_side_is_kept() -> None:
    """A side that nobody knows is Silver's to judge, not the feed's to guess."""
    (record,) = parse(frame(row().replace('"sell"', '"auction"')), 0).records
    assert record["side"] == "auction"


STATUS = '{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","upcoming_maintenance":[],"emergency":false}]}'
ACCEPTED = '{"method":"subscribe","result":{"channel":"trade","snapshot":false,"symbol":"BTC/USD"},"success":true,"req_id":1}'


@pytest.mark.parametrize(
    ("text", "event"), [(STATUS, "status"), ('{"channel":"heartbeat"}', "heartbeat"), (ACCEPTED, "subscribe"), ('{"method":"pong"}', "pong")]
)
def test_events_carry_no_trade(text: str, event: str) -> None:
    """Status (with its fields of 2026), heartbeats and answers are events."""
    parsed = parse(text, 0)
    assert (parsed.records, parsed.event, parsed.refused) == ((), event, None)


def test_refusal_with_its_symbol_at_the_top() -> None:
    """The error for XBT/USD has no result; it is a refusal in the exchange's words."""
    text = '{"error":"Currency pair not supported XBT/USD","method":"subscribe","success":false,"symbol":"XBT/USD","req_id":1}'
    assert parse(text, 0).refused == text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"channel":3}', '{"channel":"trade"}', '{"channel":"trade","data":{}}', '{"channel":"trade","data":[{"price":Infinity}]}']
)
def test_malformed_frames(text: str) -> None:
    """Whatever is not a message of the protocol raises MalformedFrame."""
    with pytest.raises(MalformedFrame):
        parse(text, 0)


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@settings(max_examples=40)
@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["symbol", "timestamp", "side"]), inner), max_leaves=8))
def test_no_json_raises_anything_else(value: object) -> None:
    """Any JSON in the place of the trades is trades, problems or a MalformedFrame."""
    try:
        parse(json.dumps({"channel": "trade", "data": value}), 0)
    except MalformedFrame as error:
        assert str(error)


def test_hello_declines_the_snapshot() -> None:
    """The subscription says explicitly that no snapshot is wanted."""
    (text,) = PROTOCOL.hello(["BTC/USD"])
    assert json.loads(text)["params"] == {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": False}
