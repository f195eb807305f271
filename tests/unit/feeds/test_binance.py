"""The parser of Binance's combined trade streams."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from fastavro import parse_schema
from fastavro.validation import validate
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.binance import PROTOCOL, parse, url
from k2.feeds.protocol import MalformedFrame
from k2.registry.platform import load_platform

SPOT = (
    '{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,'
    '"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
)
SCHEMA = parse_schema(json.loads(load_platform().exchanges["binance"].avro_schema()))


def with_data(**changes: object) -> str:
    frame = json.loads(SPOT)
    frame["data"] |= changes
    return json.dumps(frame)


def test_spot_message_becomes_one_record() -> None:
    """Every field of a spot message lands in its field of the schema, numbers as the exchange wrote them."""
    (record,) = parse(SPOT, 17).records
    assert record == {
        "event_type": "trade",
        "event_time_ms": 1723161255343,
        "symbol": "BTCUSDT",
        "trade_id": 3735683259,
        "price": "61837.63000000",
        "quantity": "0.02000000",
        "trade_time_ms": 1723161255342,
        "is_buyer_maker": True,
        "is_best_match": True,
        "ingestion_timestamp": 17,
    }
    assert validate(record, SCHEMA)


def test_fields_are_read_by_name_and_case() -> None:
    """Old fields (b, a), futures' X and fields that nobody knows change nothing; e and E, t and T, m and M stay apart."""
    frame = with_data(b=88, a=50, X="MARKET", m=False, M=True, new={"e": "x"})
    (record,) = parse(frame, 0).records
    assert (record["is_buyer_maker"], record["is_best_match"]) == (False, True)


def test_futures_message_has_no_best_match() -> None:
    """Without M the nullable field is null and the record still fits the schema."""
    frame = json.loads(SPOT)
    del frame["data"]["M"]
    (record,) = parse(json.dumps(frame), 0).records
    assert record["is_best_match"] is None
    assert validate(record, SCHEMA)


@pytest.mark.parametrize("change", [{"t": "12"}, {"t": None}, {"p": 1}, {"m": "true"}, {"T": 1.5}, {"t": 2**63}])
def test_wrong_types_do_not_fit_the_schema(change: dict[str, object]) -> None:
    """A value of another type is kept as it came, so that the schema refuses the record instead of a guess passing."""
    (record,) = parse(with_data(**change), 0).records
    assert not validate(record, SCHEMA, raise_errors=False)


@pytest.mark.parametrize(("frame", "event"), [('{"result":null,"id":1}', "result"), ('{"stream":"x@kline","data":{"e":"kline"}}', "kline")])
def test_other_frames_are_events(frame: str, event: str) -> None:
    """Answers and other channels carry no trade."""
    parsed = parse(frame, 0)
    assert (parsed.records, parsed.event, parsed.refused) == ((), event, None)


def test_error_is_a_refusal() -> None:
    """An error answer is handed on in the exchange's words."""
    frame = '{"error":{"code":2,"msg":"Invalid request"},"id":1}'
    assert parse(frame, 0).refused == frame


@pytest.mark.parametrize(
    "frame", ["", "{", "null", "[1]", '{"stream":"a","data":[]}', '{"data":{}}', "[" * 100_000, '{"stream":"a","data":{"e":"trade","p":NaN}}']
)
def test_malformed_frames(frame: str) -> None:
    """Whatever is not a message of the protocol raises MalformedFrame."""
    with pytest.raises(MalformedFrame):
        parse(frame, 0)


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    """Any text at all is a message, an event or a MalformedFrame."""
    try:
        parse(text, 0)
    except MalformedFrame as error:
        assert str(error)


def test_url_names_the_streams() -> None:
    """The combined stream's address lists every symbol in lower case."""
    assert url("wss://stream.binance.com:9443/", ["BTCUSDT", "ETHUSDT"]) == "wss://stream.binance.com:9443/stream?streams=btcusdt@trade/ethusdt@trade"
    assert PROTOCOL.hello(["BTCUSDT"]) == []


def test_recorded_session(recordings_folder: Path) -> None:
    """Every recorded message is one trade that fits the schema, and the ids have no gap."""
    with gzip.open(recordings_folder / "binance_spot_btcusdt_trade_ws.txt.gz", "rt") as lines:
        frames = [line.split(" ", 1)[1] for line in lines]
    records = [record for frame in frames for record in parse(frame, 0).records]
    assert len(records) == len(frames) == 19_904
    assert all(validate(record, SCHEMA) for record in records)
    assert [r["trade_id"] for r in records] == list(range(records[0]["trade_id"], records[0]["trade_id"] + len(records)))
    assert all(json.loads(f)["data"]["p"] == r["price"] and json.loads(f)["data"]["q"] == r["quantity"] for f, r in zip(frames, records, strict=True))
