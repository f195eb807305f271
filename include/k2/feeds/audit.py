"""What a feed missed, repeated or changed: the simulator's truth against the trades that are found downstream.

Pure: columns in, findings out. A trade counts as missed from the moment when somebody first subscribed to its book,
also while a broken feed was not connected. It does not count where nobody wanted it: before the first subscription, and
after the last subscriber left on purpose (close code 1001, which a feed sends when it is asked to stop).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2.feeds import columns
from k2.feeds.trades import Trade, plain

Numbers = NDArray[np.int64]

LEFT_ON_PURPOSE = 1001
SHOWN = 20


@dataclass
class Gap:
    """Trades of one symbol, next to each other in the truth, that are not downstream. Ids are None where the exchange gives none."""

    symbol: str
    first_id: int | None
    last_id: int | None
    trades: int
    first_us: int
    last_us: int


@dataclass(frozen=True)
class Repeat:
    """One trade that is downstream more often than the market sent it as a trade."""

    trade: Trade
    times: int
    expected: int


@dataclass
class Audit:
    """Counts are of trades. `changed`, `repeats` and `unexpected` list at most SHOWN examples each."""

    expected: int = 0
    found: int = 0
    """All found downstream, repeats included."""
    missing: int = 0
    gaps: list[Gap] = field(default_factory=list)
    not_wanted: dict[str, int] = field(default_factory=dict)
    """Per symbol, trades that nobody was subscribed to and that are not downstream."""
    repeated: int = 0
    """Found beyond the first time."""
    repeats: list[Repeat] = field(default_factory=list)
    changed_count: int = 0
    changed: list[tuple[Trade, Trade]] = field(default_factory=list)
    """(as sent, as found), where price, quantity, side, time or order type differ."""
    unexpected_count: int = 0
    unexpected: list[Trade] = field(default_factory=list)
    """Found downstream and never sent."""
    before_truth: int = 0
    """Found downstream, and older than the oldest line of a truth that has been cut: nothing can be said of them."""
    faults: dict[str, int] = field(default_factory=dict)
    """Faults done on demand, by kind."""

    @property
    def whole(self) -> bool:
        """Every wanted trade is downstream with the right content, and nothing else is. Repeats are allowed."""
        return not (self.missing or self.changed_count or self.unexpected_count)


def content(trade: Trade) -> tuple[Hashable, ...]:
    """All that both sides can know of a trade, each value in one spelling."""
    return trade.symbol, plain(trade.price), plain(trade.quantity), trade.side, trade.order_type, trade.time_us


def identity(trade: Trade, protocol: str) -> Hashable:
    """What makes a trade this trade: its symbol and id, or all of its content where the protocol (kraken_v1) has no ids."""
    return content(trade) if protocol == "kraken_v1" else (trade.symbol, trade.id)


class _Wanted:
    """Which symbols somebody wants at a place in the truth."""

    def __init__(self) -> None:
        self._sessions: dict[int, set[str]] = {}
        self._symbols: set[str] = set()

    def event(self, line: Mapping[str, Any]) -> None:
        match line["event"]:
            case "started" | "stopped":
                self._sessions.clear()
            case "subscribed":
                self._sessions.setdefault(line["session"], set()).update(line["symbols"])
                self._symbols.update(line["symbols"])
            case "unsubscribed":
                left = set(line["symbols"])
                self._sessions.setdefault(line["session"], set()).difference_update(left)
                self._symbols -= left - self._subscribed()
            case "closed":
                left = self._sessions.pop(line["session"], set())
                if line["by"] == "client" and line["code"] == LEFT_ON_PURPOSE:
                    self._symbols -= left - self._subscribed()

    def _subscribed(self) -> set[str]:
        return set().union(*self._sessions.values())

    def wants(self, symbol: str, *, broken: bool) -> bool:
        """A trade of a pair that nobody asked for (`broken`) goes to everybody who listens."""
        return bool(self._symbols) if broken else symbol in self._symbols


class _Horizon:
    """How far back the truth reaches: its oldest files are removed in time."""

    def __init__(self, sent: pa.Table) -> None:
        self._cut = sent.num_rows > 0 and sent["message"][0].as_py() > 1
        self._first_us: dict[str, int] = {}
        if self._cut:
            firsts = sent.select(["symbol", "time_us"]).group_by("symbol", use_threads=False).aggregate([("time_us", "first")])
            self._first_us = dict(zip(firsts["symbol"].to_pylist(), firsts["time_us_first"].to_pylist(), strict=True))

    def is_before(self, trade: Trade) -> bool:
        return self._cut and trade.time_us < self._first_us.get(trade.symbol, max(self._first_us.values()))


@dataclass
class _Unmatched:
    """A sent trade that is not downstream as it was sent."""

    trade: Trade
    wanted: bool
    run: int
    """How many trades of the symbol were matched before: equal for neighbours."""


def audit(truth: Iterable[Mapping[str, Any]], found: Iterable[Trade], protocol: str) -> Audit:
    """Compare the truth's lines, in their order, with the trades found downstream, in any order."""
    return compare(columns.of_lines(truth), columns.of_trades(found), protocol)


def compare(truth: pa.Table, found: pa.Table, protocol: str) -> Audit:
    """The same, of columns (`k2.feeds.columns`). Only trades that differ are looked at one by one."""
    is_trade = pc.is_null(truth["event"])
    sent = truth.filter(is_trade)
    with_id = protocol != "kraken_v1"
    sent_keys, found_keys = columns.keys(sent, with_id=with_id), columns.keys(found, with_id=with_id)
    kinds, times_sent = np.unique(sent_keys, return_counts=True)
    others, first_found, times_found = np.unique(found_keys, return_index=True, return_counts=True)
    found_of_sent, sent_of_found = _counts(kinds, others, times_found), _counts(others, kinds, times_sent)
    result = Audit(found=len(found_keys), expected=int(np.minimum(times_sent, found_of_sent).sum()))
    short = found_of_sent < times_sent
    rows = _without_match(sent_keys, dict(zip(kinds[short].tolist(), found_of_sent[short].tolist(), strict=True)))
    unmatched = list(_unmatched(result, truth, is_trade.to_numpy(), sent, rows))
    strange = _judge_leftovers(result, found, first_found, times_found - sent_of_found, sent_of_found, protocol)
    originals = _originals(sent, strange, protocol)
    _judge_unmatched(result, unmatched, strange, protocol)
    horizon = _Horizon(sent)
    for key, trades in strange.items():
        for trade in trades:
            _judge_stranger(result, trade, originals.get(key), horizon)
    return result


def _counts(wanted: Numbers, known: Numbers, counts: Numbers) -> Numbers:
    """The count of each wanted number among the known ones, which are sorted; 0 for others."""
    if not len(known):
        return np.zeros(len(wanted), np.int64)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, counts[at], 0)


def _without_match(keys: Numbers, left: dict[int, int]) -> list[int]:
    """The rows whose key is used up by earlier rows, given how often each key that is short can be used."""
    rows = []
    for row in np.flatnonzero(np.isin(keys, np.fromiter(left, np.int64))).tolist():
        key = int(keys[row])
        if left[key]:
            left[key] -= 1
        else:
            rows.append(row)
    return rows


def _unmatched(result: Audit, truth: pa.Table, is_trade: NDArray[np.bool_], sent: pa.Table, rows: Sequence[int]) -> Iterator[_Unmatched]:
    """The sent trades in these rows with what was wanted when they were sent. Counts the faults."""
    wanted, line_of = _Wanted(), np.flatnonzero(is_trade)
    events = zip(np.flatnonzero(~is_trade).tolist(), truth.filter(pc.is_valid(truth["event"])).to_pylist(), strict=True)
    waiting = next(events, None)
    trades, faults = columns.trades_at(sent, rows), sent["fault"].take(pa.array(rows, pa.int64())).to_pylist()
    symbols = sent["symbol"].combine_chunks().dictionary_encode()
    codes, names = symbols.indices.to_numpy(), symbols.dictionary.to_pylist()
    runs = {name: np.cumsum(codes == code) for code, name in enumerate(names)} if rows else {}
    missed: Counter[str] = Counter()
    for row, trade, fault in zip(rows, trades, faults, strict=True):
        while waiting is not None and waiting[0] < line_of[row]:
            _see(result, wanted, waiting[1])
            waiting = next(events, None)
        missed[trade.symbol] += 1
        matched_before = int(runs[trade.symbol][row]) - missed[trade.symbol]
        yield _Unmatched(trade, wanted.wants(trade.symbol, broken=fault is not None), matched_before)
    while waiting is not None:
        _see(result, wanted, waiting[1])
        waiting = next(events, None)


def _see(result: Audit, wanted: _Wanted, event: Mapping[str, Any]) -> None:
    wanted.event(event)
    if event["event"] == "fault":
        result.faults[event["kind"]] = result.faults.get(event["kind"], 0) + 1


def _judge_leftovers(result: Audit, found: pa.Table, first_found: Numbers, more: Numbers, sent_times: Numbers, protocol: str) -> dict[Hashable, list[Trade]]:
    """Note what is found more often than it was sent as a repeat; return, by identity, what was never sent like this."""
    strange: dict[Hashable, list[Trade]] = {}
    over = np.flatnonzero(more > 0)
    for at, trade in zip(over.tolist(), columns.trades_at(found, first_found[over]), strict=True):
        times, expected = int(more[at]), int(sent_times[at])
        if expected:
            result.repeated += times
            if len(result.repeats) < SHOWN:
                result.repeats.append(Repeat(trade, expected + times, expected))
        else:
            strange.setdefault(identity(trade, protocol), []).extend([trade] * times)
    return strange


def _originals(sent: pa.Table, strange: Mapping[Hashable, Any], protocol: str) -> dict[Hashable, Trade]:
    """The first trade that was sent with each of these identities, as far as there is one."""
    if not strange or protocol == "kraken_v1":
        return {}  # what has all of its content for its identity was sent like this or not at all
    rows = np.flatnonzero(pc.is_in(sent["id"], pa.array({number for _, number in strange}, pa.int64())).to_numpy())  # type: ignore[misc]
    originals: dict[Hashable, Trade] = {}
    for trade in columns.trades_at(sent, rows):
        originals.setdefault(identity(trade, protocol), trade)
    return originals


def _judge_unmatched(result: Audit, unmatched: Iterable[_Unmatched], strange: dict[Hashable, list[Trade]], protocol: str) -> None:
    """A sent trade that is not downstream as such came changed, is missing, or was wanted by nobody."""
    gaps: dict[tuple[str, int], Gap] = {}
    for item in unmatched:
        trade = item.trade
        if others := strange.get(identity(trade, protocol)):
            result.expected += 1
            _note_changed(result, trade, others.pop())
        elif item.wanted:
            result.expected += 1
            result.missing += 1
            _extend(result.gaps, gaps, item, protocol)
        else:
            result.not_wanted[trade.symbol] = result.not_wanted.get(trade.symbol, 0) + 1


def _judge_stranger(result: Audit, trade: Trade, sent: Trade | None, horizon: _Horizon) -> None:
    if sent is not None:
        _note_changed(result, sent, trade)
    elif horizon.is_before(trade):
        result.before_truth += 1
    else:
        result.unexpected_count += 1
        if len(result.unexpected) < SHOWN:
            result.unexpected.append(trade)


def _note_changed(result: Audit, sent: Trade, found: Trade) -> None:
    result.changed_count += 1
    if len(result.changed) < SHOWN:
        result.changed.append((sent, found))


def _extend(gaps: list[Gap], by_run: dict[tuple[str, int], Gap], item: _Unmatched, protocol: str) -> None:
    trade = item.trade
    number = None if protocol == "kraken_v1" else trade.id
    gap = by_run.get((trade.symbol, item.run))
    if gap is None:
        gap = by_run[trade.symbol, item.run] = Gap(trade.symbol, number, number, 0, trade.time_us, trade.time_us)
        gaps.append(gap)
    gap.last_id, gap.trades, gap.last_us = number, gap.trades + 1, max(gap.last_us, trade.time_us)
    gap.first_us = min(gap.first_us, trade.time_us)
