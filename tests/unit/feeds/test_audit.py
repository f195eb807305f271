"""The truth against what is found downstream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.feeds.audit import Gap, audit
from k2.feeds.simulator.truth import trade_line
from k2.feeds.trades import Trade

OPENED = {"event": "subscribed", "session": 1, "symbols": ["BTC/USD"], "at_us": 0, "message": 1}


def trade(number: int, **changes: Any) -> Trade:
    return replace(Trade("kraken", "BTC/USD", number, f"{100 + number}.5", "0.10000000", "b", "l", 1_000_000 * number), **changes)


def lines(trades: Iterable[Trade]) -> list[dict[str, Any]]:
    return [trade_line(t, message, 0) for message, t in enumerate(trades, 1)]


TRADES = [trade(n) for n in range(1, 11)]


def closed(code: int | None, by: str = "client") -> dict[str, Any]:
    return {"event": "closed", "session": 1, "by": by, "code": code, "at_us": 0, "message": 1}


@pytest.mark.parametrize("protocol", ["kraken_v2", "kraken_v1"])
def test_all_there(protocol: str) -> None:
    """The same trades on both sides, in another order and spelling, are no finding."""
    found = [replace(t, price=t.price + "000", quantity="1e-1", id=t.id if protocol == "kraken_v2" else None) for t in reversed(TRADES)]
    result = audit([OPENED, *lines(TRADES)], found, protocol)
    assert (result.expected, result.found, result.missing, result.repeated, result.whole) == (10, 10, 0, 0, True)


def test_gaps_are_ranges() -> None:
    """Neighbours that are missing are one gap with its ids and times."""
    result = audit([OPENED, *lines(TRADES)], [t for t in TRADES if t.id not in (3, 4, 5, 9)], "kraken_v2")
    assert result.gaps == [Gap("BTC/USD", 3, 5, 3, 3_000_000, 5_000_000), Gap("BTC/USD", 9, 9, 1, 9_000_000, 9_000_000)]
    assert (result.missing, result.whole) == (4, False)


def test_gap_without_ids() -> None:
    """Kraken v1 has no ids: a gap has times only."""
    result = audit([OPENED, *lines(TRADES)], [replace(t, id=None) for t in TRADES[:7]], "kraken_v1")
    assert result.gaps == [Gap("BTC/USD", None, None, 3, 8_000_000, 10_000_000)]


def test_repeats_are_counted_and_allowed() -> None:
    """A trade found three times is two repeats, and nothing is wrong."""
    result = audit([OPENED, *lines(TRADES)], [*TRADES, TRADES[2], TRADES[2], TRADES[5]], "kraken_v2")
    assert (result.repeated, result.whole) == (3, True)
    assert {(r.trade.id, r.times, r.expected) for r in result.repeats} == {(3, 3, 1), (6, 2, 1)}


def test_equal_trades_without_ids_count_by_number() -> None:
    """Two v1 trades with the same content are expected twice: once is a gap, three times a repeat."""
    twins = [trade(1), trade(1)]
    once, thrice = ([replace(trade(1), id=None)] * n for n in (1, 3))
    assert audit([OPENED, *lines(twins)], once, "kraken_v1").missing == 1
    assert audit([OPENED, *lines(twins)], thrice, "kraken_v1").repeated == 1


@pytest.mark.parametrize("change", [{"price": "1"}, {"quantity": "1"}, {"side": "s"}, {"order_type": "m"}, {"time_us": 1}])
def test_changed_content(change: dict[str, Any]) -> None:
    """The right id with another content is a change, also when it only is in the repeat."""
    wrong = replace(TRADES[4], **change)
    for found in ([*TRADES[:4], wrong, *TRADES[5:]], [*TRADES, wrong]):
        result = audit([OPENED, *lines(TRADES)], found, "kraken_v2")
        assert result.changed == [(TRADES[4], wrong)]
        assert not result.whole


def test_recordings_played_twice() -> None:
    """The same ids at other times are other trades: both plays are whole, and what is missing of one is a gap."""
    later = [replace(t, time_us=t.time_us + 10**9) for t in TRADES]
    truth = [OPENED, *lines(TRADES), *lines(later)]
    whole = audit(truth, [*TRADES, *later], "kraken_v2")
    assert (whole.expected, whole.whole, whole.repeated) == (20, True, 0)
    hurt = audit(truth, [*TRADES[1:], *later[:-2]], "kraken_v2")
    assert (hurt.missing, hurt.changed_count) == (3, 0)
    assert [(gap.first_id, gap.trades) for gap in hurt.gaps] == [(1, 1), (9, 2)]


def test_never_sent() -> None:
    """A trade that the truth does not know is unexpected."""
    result = audit([OPENED, *lines(TRADES)], [*TRADES, trade(99)], "kraken_v2")
    assert (result.unexpected, result.whole) == ([trade(99)], False)


def test_older_than_a_cut_truth() -> None:
    """Where the truth's oldest files are gone, older trades are not judged; younger unknown ones are."""
    cut = [trade_line(t, message, 0) for message, t in enumerate(TRADES[5:], 6)]
    result = audit([OPENED, *cut], [*TRADES, trade(99)], "kraken_v2")
    assert (result.before_truth, result.unexpected_count, result.missing) == (5, 1, 0)


def test_before_the_first_subscription_nothing_is_missed() -> None:
    """What the market did before somebody asked is not a gap, but said."""
    result = audit([*lines(TRADES[:4]), OPENED, *lines(TRADES[4:])], TRADES[4:], "kraken_v2")
    assert (result.missing, result.not_wanted, result.whole) == (0, {"BTC/USD": 4}, True)


@pytest.mark.parametrize(
    ("end", "missing"), [(closed(1001), 0), (closed(1000), 3), (closed(4000), 3), (closed(None, by="exchange"), 3), (closed(1001, by="exchange"), 3)]
)
def test_after_the_end_of_a_connection(end: dict[str, Any], missing: int) -> None:
    """Only a feed that was asked to stop misses nothing afterwards; a broken one does."""
    result = audit([OPENED, *lines(TRADES[:7]), end, *lines(TRADES[7:])], TRADES[:7], "kraken_v2")
    assert (result.missing, sum(result.not_wanted.values())) == (missing, 3 - missing)


def test_a_second_listener_keeps_a_symbol_wanted() -> None:
    """One of two connections leaves on purpose: the other still wants the trades."""
    second = OPENED | {"session": 2}
    result = audit([OPENED, second, closed(1001), *lines(TRADES)], [], "kraken_v2")
    assert result.missing == 10


def test_restart_of_the_market_ends_no_want() -> None:
    """A simulator killed and started again owes its trades to the feed that is about to come back."""
    result = audit([OPENED, {"event": "started", "at_us": 0, "message": 1}, *lines(TRADES)], [], "kraken_v2")
    assert result.missing == 10


def test_trades_of_an_unknown_pair_go_to_everybody() -> None:
    """A trade sent by a fault counts as wanted while somebody listens to anything."""
    odd = trade_line(trade(1, symbol="ZZZ/USD"), 1, 0, "unknown_pair")
    assert audit([OPENED, odd], [], "kraken_v2").missing == 1
    assert audit([odd], [], "kraken_v2").missing == 0


def test_faults_are_counted() -> None:
    """Faults done on demand are in the result by kind."""
    fault = {"event": "fault", "kind": "drop", "at_us": 0, "message": 1}
    assert audit([fault, fault], [], "binance").faults == {"drop": 2}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_books_balance(times: list[int]) -> None:
    """Whatever arrives how often: expected = found once + missing, and found = found once + repeated."""
    trades = [trade(n) for n in range(1, len(times) + 1)]
    found = [t for t, n in zip(trades, times, strict=True) for _ in range(n)]
    result = audit([OPENED, *lines(trades)], found, "kraken_v2")
    assert result.expected == len(trades)
    assert result.missing == times.count(0) == sum(gap.trades for gap in result.gaps)
    assert result.found == (result.expected - result.missing) + result.repeated
