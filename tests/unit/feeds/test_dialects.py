"""What the simulator says is what the feeds' parsers understand, and it answers as the exchanges do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from k2.feeds.audit import content
from k2.feeds.protocol import MalformedFrame
from k2.feeds.protocols import PROTOCOLS
from k2.feeds.simulator.binance_server import BinanceDialect
from k2.feeds.simulator.dialect import Change, Subscriptions
from k2.feeds.simulator.faults import malformed_frames
from k2.feeds.simulator.kraken_v1_server import KrakenV1Dialect
from k2.feeds.simulator.kraken_v2_server import KrakenV2Dialect
from k2.feeds.simulator.message import Message
from k2.feeds.trades import Trade, trade_of_record

V1, V2, BINANCE = KrakenV1Dialect(snapshots=False), KrakenV2Dialect(), BinanceDialect()
DIALECTS = {"binance": BINANCE, "kraken_v1": V1, "kraken_v2": V2}
NOW = 1_795_247_731_069_500


def message(protocol: str, quantity: str = "0.02798644") -> Message:
    if protocol == "binance":
        return Message(1, NOW, (Trade("binance", "BTCUSDT", 12, "61837.63000000", quantity, "s", None, 1_795_247_731_069_000),))
    trades = (Trade("kraken", "BTC/USD", 7, "94193.7", quantity, "s", "m", NOW), Trade("kraken", "BTC/USD", 8, "94190", "1", "b", "l", NOW + 1))
    return Message(1, NOW, trades)


def subscriptions(*offered: str) -> Subscriptions:
    return Subscriptions(frozenset(offered))


CASES = [(name, change) for name, dialect in DIALECTS.items() for change in (None, *sorted(dialect.changes))]


@pytest.mark.parametrize(("protocol", "change"), CASES)
@pytest.mark.parametrize("quantity", ["0.02798644", "5e-07"])
def test_parsers_understand_every_shape(protocol: str, change: Change | None, quantity: str) -> None:
    """In every shape that a message can take, all its trades arrive with their content."""
    sent = message(protocol, quantity)
    records = PROTOCOLS[protocol].parse(DIALECTS[protocol].trades(sent, change), 0).records
    found = [trade_of_record(sent.trades[0].exchange, record) for record in records]
    assert [content(t) for t in found] == [content(t) for t in sent.trades]
    assert [t.id for t in found] == [None if protocol == "kraken_v1" else t.id for t in sent.trades]


def test_changes_are_changes() -> None:
    """Each change of Binance's messages adds or removes the fields that it is named for."""

    def fields(change: Change | None) -> set[str]:
        return set(json.loads(BINANCE.trades(message("binance"), change))["data"])

    assert fields(None) == {"e", "E", "s", "t", "p", "q", "T", "m", "M"}
    assert fields(Change.ORDER_IDS) - fields(None) == {"a", "b"}
    assert (fields(Change.FUTURES) - fields(None), fields(None) - fields(Change.FUTURES)) == ({"X"}, {"M"})
    assert len(fields(Change.ADD_FIELDS)) > len(fields(None))


def test_binance_frame_is_the_recorded_one(recordings_folder: Path) -> None:
    """A spot message has the recorded messages' fields in their order."""
    import gzip

    with gzip.open(recordings_folder / "binance_spot_btcusdt_trade_ws.txt.gz", "rt") as lines:
        recorded = json.loads(next(lines).split(" ", 1)[1])
    ours = json.loads(BINANCE.trades(message("binance"), None))
    assert [list(ours), list(ours["data"])] == [list(recorded), list(recorded["data"])]
    assert [type(v) for v in ours["data"].values()] == [type(v) for v in recorded["data"].values()]


def test_v1_session_is_the_recorded_one(recordings_folder: Path) -> None:
    """Status, subscription answers and trades have the recorded frames' fields and number formats."""
    lines = (recordings_folder / "kraken_ws_v1_trade_xbtusd.txt").read_text().splitlines()
    recorded = [json.loads(line.split(": ", 1)[1]) for line in lines if re.match(r"\d+\.\d+: ", line)]
    status, answer = (next(f for f in recorded if isinstance(f, dict) and f["event"] == e) for e in ("systemStatus", "subscriptionStatus"))
    (ours,) = V1.welcome("/", subscriptions())
    assert set(json.loads(ours)) == set(status)
    (ours,) = V1.answer('{"event":"subscribe","pair":["XBT/USD"],"subscription":{"name":"trade"}}', subscriptions("BTC/USD"))
    assert set(json.loads(ours)) == set(answer)
    trade = next(f for f in recorded if isinstance(f, list) and f[-1] == "XBT/USD")[1][0]
    row = json.loads(V1.trades(message("kraken_v1"), None))[1][0]
    assert [type(v) for v in row] == [type(v) for v in trade]
    assert [len(v.partition(".")[2]) for v in row[:3]] == [len(v.partition(".")[2]) for v in trade[:3]]


@pytest.mark.parametrize("name", ["BTC/USD", "XBT/USD"])
def test_v1_takes_both_names(name: str) -> None:
    """v1 takes either name of Bitcoin and always answers XBT."""
    subs = subscriptions("BTC/USD")
    (answer,) = V1.answer(json.dumps({"event": "subscribe", "pair": [name], "subscription": {"name": "trade"}}), subs)
    assert json.loads(answer)["pair"] == "XBT/USD"
    assert subs.symbols == {"BTC/USD"}


def test_v2_refuses_the_old_name() -> None:
    """XBT/USD is an error with its symbol at the top level; the other pair of the same request is accepted."""
    subs = subscriptions("BTC/USD", "ETH/USD")
    request = {"method": "subscribe", "params": {"channel": "trade", "symbol": ["XBT/USD", "ETH/USD"], "snapshot": False}, "req_id": 5}
    refused, accepted = (json.loads(text) for text in V2.answer(json.dumps(request), subs))
    assert (refused["success"], refused["symbol"], refused["error"]) == (False, "XBT/USD", "Currency pair not supported XBT/USD")
    assert (accepted["success"], accepted["result"]["symbol"], accepted["req_id"]) == (True, "ETH/USD", 5)
    assert subs.symbols == {"ETH/USD"}


@pytest.mark.parametrize(("params", "expected"), [({}, ["BTC/USD"]), ({"snapshot": True}, ["BTC/USD"]), ({"snapshot": False}, [])])
def test_v2_snapshot_flag(params: dict[str, Any], expected: list[str]) -> None:
    """A snapshot comes unless it is declined."""
    subs = subscriptions("BTC/USD")
    V2.answer(json.dumps({"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]} | params}), subs)
    assert subs.snapshot_of == expected


def test_v2_status_has_the_fields_of_2026() -> None:
    """The first message says what the exchange's own says since autumn 2026."""
    (text,) = V2.welcome("/v2", subscriptions())
    assert {"upcoming_maintenance", "emergency"} <= set(json.loads(text)["data"][0])


@pytest.mark.parametrize(
    ("dialect", "ping", "pong"),
    [(V1, '{"event":"ping","reqid":42}', {"event": "pong", "reqid": 42}), (V2, '{"method":"ping","req_id":42}', {"method": "pong", "req_id": 42})],
)
def test_application_ping(dialect: Any, ping: str, pong: dict[str, Any]) -> None:
    """Kraken's own ping is answered with its number."""
    (answer,) = dialect.answer(ping, subscriptions())
    assert pong.items() <= json.loads(answer).items()


def test_v1_unknown_pair_and_channel() -> None:
    """A pair or channel that does not exist is refused in a subscriptionStatus."""
    (pair,) = V1.answer('{"event":"subscribe","pair":["FOO/BAR"],"subscription":{"name":"trade"}}', subscriptions("BTC/USD"))
    (channel,) = V1.answer('{"event":"subscribe","pair":["XBT/USD"],"subscription":{"name":"magic"}}', subscriptions("BTC/USD"))
    assert [json.loads(a)["status"] for a in (pair, channel)] == ["error", "error"]


def test_binance_subscribes_by_path_and_by_message() -> None:
    """Streams of the address and of SUBSCRIBE add up; UNSUBSCRIBE takes away; the list names them."""
    subs = subscriptions()
    BINANCE.welcome("/stream?streams=btcusdt@trade/ethusdt@trade", subs)
    assert json.loads(BINANCE.answer('{"method":"SUBSCRIBE","params":["bnbusdt@trade"],"id":1}', subs)[0]) == {"result": None, "id": 1}
    BINANCE.answer('{"method":"UNSUBSCRIBE","params":["ethusdt@trade"],"id":2}', subs)
    assert subs.symbols == {"BTCUSDT", "BNBUSDT"}
    (listed,) = BINANCE.answer('{"method":"LIST_SUBSCRIPTIONS","id":3}', subs)
    assert json.loads(listed)["result"] == ["bnbusdt@trade", "btcusdt@trade"]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize(
    "text", ["", "3", "[]", "{}", '{"event":"dance"}', '{"method":"dance"}', '{"method":null,"params":3}', '{"event":"subscribe","subscription":null}']
)
def test_nonsense_is_answered_with_an_error(dialect: Any, text: str) -> None:
    """No client can break the simulator with a frame."""
    (answer,) = dialect.answer(text, subscriptions())
    assert "rror" in answer


@pytest.mark.parametrize("protocol", DIALECTS)
def test_malformed_frames_are_malformed(protocol: str) -> None:
    """Of nine kinds of broken frames none gives a trade to any parser, and most are malformed to it."""
    good = DIALECTS[protocol].trades(message(protocol), None)
    malformed = 0
    for data, _ in malformed_frames(good, 9):
        try:
            assert not PROTOCOLS[protocol].parse(data.decode(), 0).records
        except (MalformedFrame, UnicodeDecodeError):
            malformed += 1
    assert malformed >= 7
