"""Trades as Arrow columns, and one number for each trade that is equal where identity and content are.

A table of trades has the columns of TRADE. A truth has the columns of TRUTH besides: its lines, events among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2.feeds.trades import Trade, plain

READ_BYTES = 32 * 1024 * 1024
TRADE = pa.schema(
    [
        ("exchange", pa.string()),
        ("symbol", pa.string()),
        ("id", pa.int64()),
        ("price", pa.string()),
        ("quantity", pa.string()),
        ("side", pa.string()),
        ("order_type", pa.string()),
        ("time_us", pa.int64()),
    ]
)
TRUTH = pa.schema(
    [
        *TRADE,
        ("message", pa.int64()),
        ("fault", pa.string()),
        ("event", pa.string()),
        ("session", pa.int64()),
        ("symbols", pa.list_(pa.string())),
        ("by", pa.string()),
        ("code", pa.int64()),
        ("kind", pa.string()),
    ]
)
PIECE = 50_000


def of_trades(trades: Iterable[Trade]) -> pa.Table:
    """From trades, a piece at a time."""
    return _from_rows(({name: getattr(trade, name) for name in TRADE.names} for trade in trades), TRADE)


def of_lines(lines: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A truth from its lines."""
    return _from_rows(lines, TRUTH)


def _from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    left, pieces = iter(rows), []
    while piece := list(itertools.islice(left, PIECE)):
        pieces.append(pa.RecordBatch.from_pylist(piece, schema=schema))
    return pa.Table.from_batches(pieces, schema=schema)


def read_lines(files: Iterable[Path]) -> pa.Table:
    """A truth from its files, oldest first. A last line that is still being written is left out."""
    from pyarrow import json

    options = json.ParseOptions(explicit_schema=TRUTH, unexpected_field_behavior="ignore")
    pieces = []
    for path in files:
        for text in _whole_lines(path):
            pieces.append(json.read_json(pa.BufferReader(text), parse_options=options).cast(TRUTH))
    return pa.concat_tables(pieces) if pieces else TRUTH.empty_table()


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The file's text in pieces that end with a line's end."""
    left = b""
    with path.open("rb") as file:
        while read := file.read(READ_BYTES):
            text, end, left = (left + read).rpartition(b"\n")
            if text:
                yield text + end


def keys(table: pa.Table, *, with_id: bool) -> NDArray[np.int64]:
    """One number per trade of all that both sides can know of it, each value in one spelling; of this process alone.

    `with_id` is False where the protocol has no ids.
    """
    found = [np.empty(0, np.int64)]
    names = ["symbol", *(["id"] if with_id else []), "price", "quantity", "side", "order_type", "time_us"]
    for batch in table.select(names).to_batches(max_chunksize=PIECE):
        columns = [_plain(batch[name]) if name in ("price", "quantity") else batch[name] for name in names]
        found.append(np.fromiter(map(hash, zip(*(column.to_pylist() for column in columns), strict=True)), np.int64, len(batch)))
    return np.concatenate(found)


def _plain(numbers: pa.Array) -> pa.Array:
    """`trades.plain` of each."""
    odd = pc.invert(pc.match_substring_regex(numbers, r"^-?[1-9][0-9]*(\.[0-9]*)?$|^-?0(\.[0-9]*)?$"))
    if pc.any(odd).as_py():
        return pa.array([plain(number) for number in numbers.to_pylist()], pa.string())
    trimmed = pc.utf8_rtrim(pc.utf8_rtrim(numbers, "0"), ".")
    with_point = pc.match_substring(numbers, ".")
    return pc.if_else(with_point, trimmed, numbers)


def trades_at(table: pa.Table, rows: NDArray[np.int64] | Sequence[int]) -> list[Trade]:
    return [Trade(**row) for row in table.select(TRADE.names).take(pa.array(rows, pa.int64())).to_pylist()]
