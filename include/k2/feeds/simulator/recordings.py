"""Recorded trades in a folder, by the names of their files.

* `binance_*.txt.gz`: one combined-stream message a line, after the receiver's clock in ns and a space
* `kraken_ws_v1_trade*.txt`: a v1 session, `<time>: <json>` where received
* `kraken_<pair>_trades_*.csv`: time_ms, timestamp, side, price, amount
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k2.feeds.trades import Trade, micros, to_kraken_v2


class NoRecordings(ValueError):
    """The folder holds no recording, or one that cannot be read. The message names it."""


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """The trades of one message, in order; `event_us` is when the exchange says that it sent them."""

    event_us: int
    trades: tuple[Trade, ...]


@dataclass(frozen=True)
class Recording:
    file: str
    exchange: str
    messages: tuple[RecordedMessage, ...]
    grouped: bool
    """Whether the messages are the exchange's own; a CSV only lists trades."""

    @property
    def trades(self) -> list[Trade]:
        return [trade for message in self.messages for trade in message.trades]


def _binance(path: Path) -> Iterator[RecordedMessage]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            data = json.loads(line.split(" ", 1)[1])["data"]
            side = "s" if data["m"] else "b"
            trade = Trade("binance", data["s"], data["t"], data["p"], data["q"], side, None, data["T"] * 1000)
            yield RecordedMessage(data["E"] * 1000, (trade,))


def _kraken_v1(path: Path) -> Iterator[RecordedMessage]:
    for line in path.read_text().splitlines():
        received, _, text = line.partition(": ")
        if not text.startswith("["):
            continue
        message = json.loads(text)
        if message[-2] != "trade":
            continue
        pair = to_kraken_v2(message[-1])
        trades = tuple(Trade("kraken", pair, None, price, volume, side, kind, micros(time)) for price, volume, time, side, kind, *_ in message[1])
        yield RecordedMessage(micros(received), trades)


def _kraken_csv(path: Path) -> Iterator[RecordedMessage]:
    """The file names neither ids nor order types: every trade is its own message and a limit order's."""
    pair = path.name.split("_")[1].upper()
    symbol = to_kraken_v2(f"{pair[:-3]}/{pair[-3:]}")
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            time_us = int(row["time_ms"]) * 1000
            trade = Trade("kraken", symbol, None, row["price"], row["amount"], row["side"][0], "l", time_us)
            yield RecordedMessage(time_us, (trade,))


_READERS = {
    "binance_*.txt.gz": ("binance", True, _binance),
    "kraken_ws_v1_trade*.txt": ("kraken", True, _kraken_v1),
    "kraken_*_trades_*.csv": ("kraken", False, _kraken_csv),
}


def read_recordings(folder: Path) -> list[Recording]:
    """Every recording in the folder, by file name. Raises NoRecordings."""
    found = []
    for pattern, (exchange, grouped, reader) in _READERS.items():
        for path in sorted(folder.glob(pattern)):
            try:
                messages = tuple(reader(path))
            except (ValueError, KeyError, IndexError, OSError) as error:
                raise NoRecordings(f"{path}: {error!r}: it is not a recording of the form that its name says") from error
            if messages:
                found.append(Recording(path.name, exchange, messages, grouped))
    if not found:
        raise NoRecordings(f"{folder}: no recording in it: expected files named {', '.join(_READERS)}")
    return found


def symbols(recordings: list[Recording]) -> dict[str, tuple[str, ...]]:
    """Per exchange, every symbol that a recording trades: what a feed must subscribe to in order to miss nothing."""
    found: dict[str, set[str]] = {}
    for recording in recordings:
        found.setdefault(recording.exchange, set()).update(trade.symbol for trade in recording.trades)
    return {exchange: tuple(sorted(names)) for exchange, names in found.items()}
