"""What a feed missed, repeated or changed: the simulator's truth against the trades that are found downstream.

Pure: lines and trades in, findings out. A trade counts as missed from the moment when somebody first subscribed to its book,
also while a broken feed was not connected. It does not count where nobody wanted it: before the first subscription, and
after the last subscriber left on purpose (close code 1001, which a feed sends when it is asked to stop).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k2.feeds.simulator.truth import trade_of_line
from k2.feeds.trades import Trade, plain

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

    def wants(self, line: Mapping[str, Any]) -> bool:
        """A trade of a pair that nobody asked for goes to everybody who listens."""
        return bool(self._symbols) if line.get("fault") else line["symbol"] in self._symbols


class _Horizon:
    """How far back the truth reaches: its oldest files are removed in time."""

    def __init__(self) -> None:
        self._cut: bool | None = None
        self._first_us: dict[str, int] = {}

    def see(self, line: Mapping[str, Any]) -> None:
        if self._cut is None:
            self._cut = line["message"] > 1
        self._first_us.setdefault(line["symbol"], line["time_us"])

    def is_before(self, trade: Trade) -> bool:
        return bool(self._cut) and trade.time_us < self._first_us.get(trade.symbol, max(self._first_us.values()))


@dataclass
class _Unmatched:
    """A sent trade that is not downstream as it was sent."""

    trade: Trade
    wanted: bool
    run: int
    """How many trades of the symbol were matched before: equal for neighbours."""


def audit(truth: Iterable[Mapping[str, Any]], found: Iterable[Trade], protocol: str) -> Audit:
    """Compare the truth's lines, in their order, with the trades found downstream, in any order."""
    result = Audit()
    left: Counter[tuple[Hashable, ...]] = Counter()
    examples: dict[tuple[Hashable, ...], Trade] = {}
    for trade in found:
        key = _full(trade, protocol)
        left[key] += 1
        examples[key] = trade
        result.found += 1
    sent: dict[Hashable, Trade] = {}
    sent_times: Counter[tuple[Hashable, ...]] = Counter()
    unmatched: list[_Unmatched] = []
    matched: Counter[str] = Counter()
    wanted, horizon = _Wanted(), _Horizon()
    for line in truth:
        if "event" in line:
            wanted.event(line)
            if line["event"] == "fault":
                result.faults[line["kind"]] = result.faults.get(line["kind"], 0) + 1
            continue
        trade, key = trade_of_line(line), _full(trade_of_line(line), protocol)
        horizon.see(line)
        sent.setdefault(identity(trade, protocol), trade)
        sent_times[key] += 1
        if left[key] > 0:
            left[key] -= 1
            matched[trade.symbol] += 1
            result.expected += 1
        else:
            unmatched.append(_Unmatched(trade, wanted.wants(line), matched[trade.symbol]))
    strange = _judge_leftovers(result, left, examples, sent_times, protocol)
    _judge_unmatched(result, unmatched, strange, protocol)
    for key, trades in strange.items():
        for trade in trades:
            _judge_stranger(result, trade, sent.get(key), horizon)
    return result


def _full(trade: Trade, protocol: str) -> tuple[Hashable, ...]:
    """Identity and content."""
    return identity(trade, protocol), content(trade)


def _judge_leftovers(
    result: Audit,
    left: Counter[tuple[Hashable, ...]],
    examples: Mapping[tuple[Hashable, ...], Trade],
    sent_times: Counter[tuple[Hashable, ...]],
    protocol: str,
) -> dict[Hashable, list[Trade]]:
    """Note what is found more often than it was sent as a repeat; return, by identity, what was never sent like this."""
    strange: dict[Hashable, list[Trade]] = {}
    for key, times in left.items():
        trade = examples.get(key)
        if not times or trade is None:
            continue
        if expected := sent_times[key]:
            result.repeated += times
            if len(result.repeats) < SHOWN:
                result.repeats.append(Repeat(trade, expected + times, expected))
        else:
            strange.setdefault(identity(trade, protocol), []).extend([trade] * times)
    return strange


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
