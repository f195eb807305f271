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


def audit(truth: Iterable[Mapping[str, Any]], found: Iterable[Trade], protocol: str) -> Audit:
    """Compare the truth's lines, in their order, with the trades found downstream, in any order."""
    result = Audit()
    downstream: Counter[Hashable] = Counter()
    contents: dict[Hashable, Trade] = {}
    changed_twice: list[Trade] = []
    for trade in found:
        key = identity(trade, protocol)
        downstream[key] += 1
        result.found += 1
        first = contents.setdefault(key, trade)
        if first != trade and content(first) != content(trade):
            changed_twice.append(trade)
    left = Counter(downstream)
    sent: dict[Hashable, int] = {}
    open_gaps: dict[str, Gap] = {}
    wanted, horizon = _Wanted(), _Horizon()
    for line in truth:
        if "event" in line:
            wanted.event(line)
            if line["event"] == "fault":
                result.faults[line["kind"]] = result.faults.get(line["kind"], 0) + 1
            continue
        trade = trade_of_line(line)
        key = identity(trade, protocol)
        horizon.see(line)
        again = key in sent
        sent[key] = sent.get(key, 0) + 1
        if left[key] > 0:
            left[key] -= 1
            result.expected += 1
            open_gaps.pop(trade.symbol, None)
            if not again and content(contents[key]) != content(trade):
                _note_changed(result, trade, contents[key])
        elif wanted.wants(line):
            result.expected += 1
            result.missing += 1
            _extend(result.gaps, open_gaps, trade, protocol)
        else:
            result.not_wanted[trade.symbol] = result.not_wanted.get(trade.symbol, 0) + 1
    for trade in changed_twice:
        _note_changed(result, contents[identity(trade, protocol)], trade)
    for key, times in downstream.items():
        expected = sent.get(key, 0)
        if not expected and horizon.is_before(contents[key]):
            result.before_truth += times
        elif not expected:
            result.unexpected_count += times
            if len(result.unexpected) < SHOWN:
                result.unexpected.append(contents[key])
        elif times > expected:
            result.repeated += times - expected
            if len(result.repeats) < SHOWN:
                result.repeats.append(Repeat(contents[key], times, expected))
    return result


def _note_changed(result: Audit, sent: Trade, found: Trade) -> None:
    result.changed_count += 1
    if len(result.changed) < SHOWN:
        result.changed.append((sent, found))


def _extend(gaps: list[Gap], open_gaps: dict[str, Gap], trade: Trade, protocol: str) -> None:
    number = None if protocol == "kraken_v1" else trade.id
    gap = open_gaps.get(trade.symbol)
    if gap is None:
        gap = open_gaps[trade.symbol] = Gap(trade.symbol, number, number, 0, trade.time_us, trade.time_us)
        gaps.append(gap)
    gap.last_id, gap.trades, gap.last_us = number, gap.trades + 1, max(gap.last_us, trade.time_us)
    gap.first_us = min(gap.first_us, trade.time_us)
