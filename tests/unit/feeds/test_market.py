"""The market: on its own clock, written down before it is sent, every id once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from k2.feeds.simulator.__main__ import rates, speed_of
from k2.feeds.simulator.generator import Generator
from k2.feeds.simulator.hub import Hub
from k2.feeds.simulator.market import Market, MarketState
from k2.feeds.simulator.message import Message
from k2.feeds.simulator.model import load_market, load_market_model
from k2.feeds.simulator.patterns import Pattern
from k2.feeds.simulator.recordings import RecordedMessage, Recording
from k2.feeds.simulator.replay import Replay
from k2.feeds.simulator.truth import Truth, read_truth
from k2.feeds.trades import Trade
from k2.registry.platform import ConfigError

START = 1_700_000_000_000_000


class Ears(Hub):
    """A hub that keeps what is published and checks that the truth has it already."""

    def __init__(self, exchange: str, truth: Truth, folder: Path) -> None:
        super().__init__(exchange, truth, ())
        self.messages: list[Message] = []
        self._folder = folder

    def publish(self, messages: Sequence[Message], **how: Any) -> None:
        written = {line["message"] for line in read_truth(self._folder, self.exchange) if "event" not in line}
        assert {m.number for m in messages} <= written
        self.messages += messages


class Lab:
    def __init__(self, folder: Path, exchange: str = "kraken", replay: Replay | None = None, **options: Any) -> None:
        self.folder, self.now, self.truth = folder, START, Truth(folder, exchange)
        self.hub = Ears(exchange, self.truth, folder)
        venue = load_market().exchanges[exchange]
        for symbol, book in venue.books.items():
            self.truth.ledger.begin_ids(symbol, book.first_id)
        source = replay or Generator(exchange, venue, load_market_model().exchanges[exchange], seed="1", rate=100, pattern=Pattern.STEADY)
        self.market = Market(exchange, source, self.truth, self.hub, clock=lambda: self.now, **options)

    def pass_seconds(self, seconds: float, step: float = 0.05) -> None:
        for _ in range(round(seconds / step)):
            self.now += int(step * 1e6)
            self.market.step()

    @property
    def trades(self) -> list[Trade]:
        return [t for m in self.hub.messages for t in m.trades]


def ids(trades: list[Trade], symbol: str) -> list[int | None]:
    return [t.id for t in trades if t.symbol == symbol]


@pytest.mark.parametrize("exchange", ["binance", "kraken"])
def test_ids_are_dense_and_the_truth_is_what_was_sent(tmp_path: Path, exchange: str) -> None:
    """Each book's ids count up by one from its first, messages by one from 1, and the truth holds the same trades."""
    lab = Lab(tmp_path, exchange)
    lab.pass_seconds(5)
    assert len(lab.trades) > 100
    for symbol, book in load_market().exchanges[exchange].books.items():
        found = ids(lab.trades, symbol)
        assert found == list(range(book.first_id, book.first_id + len(found)))
    assert [m.number for m in lab.hub.messages] == list(range(1, len(lab.hub.messages) + 1))
    assert [line["id"] for line in read_truth(tmp_path, exchange)] == [t.id for t in lab.trades]
    assert all(START <= t.time_us <= lab.now for t in lab.trades)


def test_ids_go_on_after_a_kill(tmp_path: Path) -> None:
    """A second market on the same folder goes on with the ids and the price of the first, which never said goodbye."""
    first = Lab(tmp_path)
    first.pass_seconds(5)
    second = Lab(tmp_path)
    second.pass_seconds(5)
    together = ids(first.trades, "BTC/USD") + ids(second.trades, "BTC/USD")
    assert together == list(range(80_000_001, 80_000_001 + len(together)))


def test_pause_stops_the_clock(tmp_path: Path) -> None:
    """While paused nothing is sent; afterwards the market goes on from where it was, without a burst."""
    lab = Lab(tmp_path)
    lab.pass_seconds(2)
    before = len(lab.trades)
    lab.market.pause()
    lab.pass_seconds(60)
    assert (len(lab.trades), lab.market.state) == (before, MarketState.PAUSED)
    lab.market.resume()
    resumed = lab.now
    lab.pass_seconds(1)
    assert 0 < len(lab.trades) - before < 400
    assert all(t.time_us > resumed - 1_000_000 for t in lab.trades[before:])


def test_a_held_up_process_makes_no_burst(tmp_path: Path) -> None:
    """A minute in which the process did not run is a minute in which the market stood still."""
    lab = Lab(tmp_path)
    lab.pass_seconds(2)
    before = len(lab.trades)
    lab.now += 60_000_000
    lab.market.step()
    assert len(lab.trades) - before < 100


def test_rate_changes_at_once(tmp_path: Path) -> None:
    """Rate 0 silences the market once the messages under way are out; a higher rate is heard."""
    lab = Lab(tmp_path)
    lab.pass_seconds(1)
    lab.market.set_rate(0, None)
    lab.pass_seconds(0.5)
    before = len(lab.trades)
    lab.pass_seconds(10)
    assert len(lab.trades) == before
    lab.market.set_rate(2000, Pattern.STEADY)
    lab.pass_seconds(2)
    assert len(lab.trades) - before > 1500


def recorded(exchange: str, numbers: list[int | None]) -> Replay:
    trades = [Trade(exchange, "BTC/USD", n, "1.5", "2.5", "b", "l", 10**15 + 1_000_000 * i) for i, n in enumerate(numbers)]
    return Replay([Recording("file", exchange, tuple(RecordedMessage(t.time_us, (t,)) for t in trades), True)])


def test_replay_waits_for_a_listener_and_ends(tmp_path: Path) -> None:
    """Recordings begin when somebody has subscribed, at the time that it is then, and the market says when they are over."""
    lab = Lab(tmp_path, replay=recorded("kraken", [None, None, None]))
    lab.pass_seconds(30)
    assert (lab.market.state, lab.trades) == (MarketState.WAITING, [])
    lab.hub.heard.set()
    heard = lab.now
    lab.pass_seconds(1)
    assert lab.market.state is MarketState.RUNNING
    lab.pass_seconds(3)
    assert lab.market.state is MarketState.FINISHED
    assert ids(lab.trades, "BTC/USD") == [80_000_001, 80_000_002, 80_000_003]
    assert [t.time_us - lab.trades[0].time_us for t in lab.trades] == [0, 1_000_000, 2_000_000]
    assert 0 <= lab.trades[0].time_us - heard <= 100_000
    (event,) = [line for line in read_truth(tmp_path, "kraken") if line.get("event") == "replay"]
    assert lab.trades[0].time_us == 10**15 + event["shifts_us"]["file"]


def test_recorded_ids_are_kept_and_not_given_again(tmp_path: Path) -> None:
    """A recorded id stays; a trade without one gets an id above all that were seen."""
    lab = Lab(tmp_path, replay=recorded("kraken", [90_000_000, 90_000_001, None]))
    lab.hub.heard.set()
    lab.pass_seconds(4)
    assert ids(lab.trades, "BTC/USD") == [90_000_000, 90_000_001, 90_000_002]


def test_a_replay_has_no_rate_to_set(tmp_path: Path) -> None:
    """The error says what sets a replay's rate."""
    with pytest.raises(ValueError, match="--speed"):
        Lab(tmp_path, replay=recorded("kraken", [1])).market.set_rate(5, None)


def test_paused_from_the_start(tmp_path: Path) -> None:
    """A market that begins paused begins when it is resumed."""
    lab = Lab(tmp_path, paused=True)
    lab.pass_seconds(5)
    assert lab.trades == []
    lab.market.resume()
    lab.pass_seconds(2)
    assert lab.trades
    assert min(t.time_us for t in lab.trades) >= START + 5_000_000


def test_invented_trades_are_in_the_truth(tmp_path: Path) -> None:
    """Trades of an unknown pair are written down as such, with ids of their own."""
    lab = Lab(tmp_path)
    invented = [*lab.market.invent(2), *lab.market.invent(1)]
    written = list(read_truth(tmp_path, "kraken"))
    assert [line["id"] for line in written] == [m.trades[0].id for m in invented] == [1, 2, 3]
    assert {line["fault"] for line in written} == {"unknown_pair"}


DEFAULTS = {"binance": 60.0, "kraken": 10.0}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], DEFAULTS),
        (["140"], {"binance": 120.0, "kraken": 20.0}),
        (["kraken=3"], {"binance": 60.0, "kraken": 3.0}),
        (["0"], {"binance": 0.0, "kraken": 0.0}),
    ],
)
def test_rate_settings(settings: list[str], expected: dict[str, float]) -> None:
    """One number is divided as the defaults are; a named one is that exchange's."""
    assert rates(settings, DEFAULTS) == expected


@pytest.mark.parametrize("setting", ["fast", "-1", "bitmex=3", "binance=", "nan"])
def test_wrong_rates_are_named(setting: str) -> None:
    """The error shows the setting."""
    with pytest.raises(ConfigError, match="--rate"):
        rates([setting], DEFAULTS)


@pytest.mark.parametrize("text", ["0", "-3", "quick", "nan"])
def test_wrong_speeds_are_named(text: str) -> None:
    """The error shows the value; `original` is 1."""
    assert speed_of("original") == 1
    with pytest.raises(ConfigError, match="--speed"):
        speed_of(text)
