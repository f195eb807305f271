"""What the market did, one JSON object a line: every trade, and every event that bears on who could have heard it.

`truth-<exchange>.jsonl` is appended to and flushed before anything is sent, so that it holds all that was sent whatever is
killed. At SEGMENT_BYTES it is put aside as `truth-<exchange>.<first message>.jsonl`; the oldest beyond KEEP are removed.
`ledger-<exchange>.json` is what the lines so far add up to, so that ids go on after a restart and never repeat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from k2.feeds.trades import Trade

SEGMENT_BYTES = 256 * 1024 * 1024
KEEP = 6


class BookLedger(BaseModel):
    """What one book has traded since the truth began."""

    trades: int = 0
    next_id: int = 1
    first_us: int | None = None
    last_us: int | None = None
    price: str | None = None


class Ledger(BaseModel):
    truth_bytes: int = 0
    """How much of the current file is counted here."""
    next_message: int = 1
    next_session: int = 1
    trades: int = 0
    books: dict[str, BookLedger] = {}
    events: dict[str, int] = {}

    def begin_ids(self, symbol: str, first_id: int) -> None:
        """A book's ids begin at `first_id`, unless they are past it."""
        book = self.books.setdefault(symbol, BookLedger())
        book.next_id = max(book.next_id, first_id)

    def count(self, line: dict[str, Any]) -> None:
        """Add one line of the truth."""
        if "event" in line:
            self.events[line["event"]] = self.events.get(line["event"], 0) + 1
            if line["event"] == "subscribed":
                self.next_session = max(self.next_session, line["session"] + 1)
            return
        book = self.books.setdefault(line["symbol"], BookLedger())
        book.trades += 1
        self.trades += 1
        if line["id"] is not None:
            book.next_id = max(book.next_id, line["id"] + 1)
        book.first_us = line["time_us"] if book.first_us is None else min(book.first_us, line["time_us"])
        book.last_us = max(book.last_us or 0, line["time_us"])
        book.price = line["price"]
        self.next_message = max(self.next_message, line["message"] + 1)


def truth_files(folder: Path, exchange: str) -> list[Path]:
    """The files of one exchange's truth, oldest first."""
    current = folder / f"truth-{exchange}.jsonl"
    return sorted(folder.glob(f"truth-{exchange}.*.jsonl")) + ([current] if current.exists() else [])


def read_truth(folder: Path, exchange: str) -> Iterator[dict[str, Any]]:
    """Every line, oldest first. A last line that is still being written is left out."""
    for path in truth_files(folder, exchange):
        with path.open() as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def trade_line(trade: Trade, message: int, index: int, fault: str | None = None) -> dict[str, Any]:
    """One trade as a line: `message` is the message's number on its exchange, `index` the trade's place in it."""
    line = {
        "exchange": trade.exchange,
        "symbol": trade.symbol,
        "id": trade.id,
        "price": trade.price,
        "quantity": trade.quantity,
        "side": trade.side,
        "order_type": trade.order_type,
        "time_us": trade.time_us,
        "message": message,
        "index": index,
    }
    return line if fault is None else {**line, "fault": fault}


class Truth:
    """Appends to one exchange's truth. Only one process may do so."""

    def __init__(self, folder: Path, exchange: str, *, segment_bytes: int = SEGMENT_BYTES, keep: int = KEEP) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._exchange, self._segment_bytes, self._keep = folder, exchange, segment_bytes, keep
        self._path = folder / f"truth-{exchange}.jsonl"
        self._ledger_path = folder / f"ledger-{exchange}.json"
        self.ledger = Ledger.model_validate_json(self._ledger_path.read_text()) if self._ledger_path.exists() else Ledger()
        self._catch_up()
        self._file = self._path.open("ab")

    def _catch_up(self) -> None:
        """Count what was written after the ledger was saved, and cut off a line that was never finished: it was not sent."""
        if not self._path.exists():
            self.ledger.truth_bytes = 0
            return
        if self._path.stat().st_size < self.ledger.truth_bytes:
            # The ledger was saved just before its file was put aside, so all of this younger file is still to be counted.
            self.ledger.truth_bytes = 0
        with self._path.open("r+b") as lines:
            lines.seek(self.ledger.truth_bytes)
            for line in lines:
                if not line.endswith(b"\n"):
                    lines.truncate(self.ledger.truth_bytes)
                    break
                self.ledger.count(json.loads(line))
                self.ledger.truth_bytes += len(line)

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Write the lines and hand them to the operating system."""
        for line in lines:
            data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
            self._file.write(data)
            self.ledger.truth_bytes += len(data)
            self.ledger.count(line)
        self._file.flush()
        if self.ledger.truth_bytes >= self._segment_bytes:
            self._put_aside()

    def _put_aside(self) -> None:
        self._file.close()
        self.save()
        self._path.rename(self._folder / f"truth-{self._exchange}.{self.ledger.next_message:015d}.jsonl")
        self.ledger.truth_bytes = 0
        self._file = self._path.open("ab")
        for old in truth_files(self._folder, self._exchange)[: -(self._keep + 1)]:
            old.unlink()

    def save(self) -> None:
        """Write the ledger, so that the next start need not count the lines so far."""
        part = self._ledger_path.with_suffix(".part")
        part.write_text(self.ledger.model_dump_json())
        part.replace(self._ledger_path)

    def close(self) -> None:
        self._file.close()
        self.save()
