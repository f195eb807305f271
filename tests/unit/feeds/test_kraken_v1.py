"""The parser of Kraken's v1 trade channel."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastavro import parse_schema
from fastavro.validation import validate
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.kraken_v1 import PROTOCOL, parse
from k2.feeds.protocol import MalformedFrame
from k2.registry.platform import load_platform

TWO = '[321,[["58721.20000","0.00511839","1617666498.239644","s","m",""],["58721.20000","0.00001161","1617666498.241382","b","l",""]],"trade","XBT/USD"]'
SCHEMA = parse_schema(json.loads(load_platform().exchanges["kraken"].avro_schema()))


def test_every_trade_of_a_message() -> None:
    """A message of two trades is two records that carry their place and no id."""
    first, second = parse(TWO, 17).records
    assert first == {
        "channel_id": 321,
        "price": "58721.20000",
        "volume": "0.00511839",
        "timestamp": "1617666498.239644",
        "side": "s",
        "order_type": "m",
        "misc": "",
        "pair": "XBT/USD",
        "ingestion_timestamp": 17,
        "trade_id": None,
        "message_index": 0,
    }
    assert (second["volume"], second["side"], second["order_type"], second["message_index"]) == ("0.00001161", "b", "l", 1)
    assert validate(first, SCHEMA)
    assert validate(second, SCHEMA)


def test_longer_arrays_are_tolerated() -> None:
    """New elements behind the known ones change nothing."""
    frame = '[1,[["1.0","2.0","3.000000","b","l","",{"new":1}]],"trade","XBT/USD"]'
    (record,) = parse(frame, 0).records
    assert (record["price"], record["misc"]) == ("1.0", "")


def test_a_broken_trade_does_not_cost_the_others() -> None:
    """A trade of too few elements is a problem; its neighbours keep their place in the message."""
    frame = '[1,[["1.0","2.0","3.0","b","l",""],["1.0"],["4.0","5.0","6.0","s","m",""]],"trade","XBT/USD"]'
    parsed = parse(frame, 0)
    assert [(r["price"], r["message_index"]) for r in parsed.records] == [("1.0", 0), ("4.0", 2)]
    assert len(parsed.problems) == 1


@pytest.mark.parametrize("event", ["heartbeat", "systemStatus", "subscriptionStatus", "pong"])
def test_events_carry_no_trade(event: str) -> None:
    """Objects are events, whatever else is in them."""
    parsed = parse(json.dumps({"event": event, "status": "online", "price": 1.5}), 0)
    assert (parsed.records, parsed.event, parsed.refused) == ((), event, None)


def test_refused_subscription() -> None:
    """A subscription status of `error` is a refusal in the exchange's words."""
    frame = '{"errorMessage":"Currency pair not supported FOO/BAR","event":"subscriptionStatus","pair":"FOO/BAR","status":"error"}'
    assert parse(frame, 0).refused == frame


@pytest.mark.parametrize("frame", ["", "{}", "[]", "[1,2,3]", '[1,{"a":1},"trade","XBT/USD"]', "3", '{"event":3}'])
def test_malformed_frames(frame: str) -> None:
    """Whatever is not a message of the protocol raises MalformedFrame."""
    with pytest.raises(MalformedFrame):
        parse(frame, 0)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=40)
@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=10))
def test_no_json_raises_anything_else(value: object) -> None:
    """Any JSON at all is a message, an event or a MalformedFrame."""
    try:
        parse(json.dumps([321, value, "trade", "XBT/USD"]), 0)
        parse(json.dumps(value), 0)
    except MalformedFrame as error:
        assert str(error)


def test_hello_subscribes_to_all() -> None:
    """One subscription names all pairs."""
    (frame,) = PROTOCOL.hello(["BTC/USD", "ETH/USD"])
    assert json.loads(frame) == {"event": "subscribe", "pair": ["BTC/USD", "ETH/USD"], "subscription": {"name": "trade"}}


def test_recorded_session(recordings_folder: Path) -> None:
    """The session of 80 s: 12 messages hold 28 trades, and all else is events."""
    lines = (recordings_folder / "kraken_ws_v1_trade_xbtusd.txt").read_text().splitlines()
    frames = [line.split(": ", 1)[1] for line in lines if re.match(r"\d+\.\d+: ", line)]
    parsed = [parse(frame, 0) for frame in frames]
    messages = [p.records for p in parsed if p.records]
    assert (len(messages), sum(map(len, messages)), sum(len(m) > 1 for m in messages)) == (12, 28, 7)
    assert [p.event for p in parsed].count("heartbeat") == 119
    assert all(validate(record, SCHEMA) for message in messages for record in message)
    assert not any(p.problems or p.refused for p in parsed)


def test_recorded_session_of_another_channel(recordings_folder: Path) -> None:
    """The ticker channel's frames are passed over."""
    lines = (recordings_folder / "kraken_ws_v1_ticker_10pairs.txt").read_text().splitlines()
    parsed = [parse(line.split(": ", 1)[1], 0) for line in lines if re.match(r"\d+\.\d+: ", line)]
    assert not any(p.records or p.problems for p in parsed)
    assert "ticker" in {p.event for p in parsed}
