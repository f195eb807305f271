"""Trades as columns: one spelling per number, and truths read from files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from k2.feeds.columns import TRUTH, keys, of_lines, of_trades, read_lines, trades_at
from k2.feeds.simulator.truth import trade_line
from k2.feeds.trades import Trade, plain

NUMBERS = st.one_of(
    st.decimals(min_value=0, max_value=10**9, places=8, allow_nan=False).map(str),
    st.sampled_from(["0", "0.000", "100", "100.000", "5e-07", "5E-8", "0E-8", "1.50", "1e3", "007.10", ".5"]),
)


def trade(price: str, number: int = 1) -> Trade:
    return Trade("kraken", "BTC/USD", number, price, "1", "b", None, 1)


@given(st.lists(NUMBERS, min_size=2, max_size=6))
def test_numbers_are_equal_when_their_values_are(prices: list[str]) -> None:
    """However they are spelt, and whatever else stands in the same column."""
    found = keys(of_trades(trade(price) for price in prices), with_id=True).tolist()
    assert [[a == b for b in found] for a in found] == [[plain(a) == plain(b) for b in prices] for a in prices]


def test_ids_count_only_where_there_are_any() -> None:
    """Kraken v1 has none."""
    two = of_trades([trade("1", 1), trade("1", 2)])
    assert len(set(keys(two, with_id=True).tolist())) == 2
    assert len(set(keys(two, with_id=False).tolist())) == 1


def test_a_truth_is_read_from_its_files_as_from_its_lines(tmp_path: Path) -> None:
    """Trades and events in their order, over several files; a line that is still being written is left out."""
    lines = [
        {"event": "subscribed", "session": 1, "symbols": ["BTC/USD"], "at_us": 0, "message": 1},
        trade_line(trade("1.10"), 1, 0),
        trade_line(trade("2", 2), 2, 0, "unknown_pair"),
        {"event": "closed", "session": 1, "by": "client", "code": None, "at_us": 0, "message": 3},
    ]
    texts = [json.dumps(line) + "\n" for line in lines]
    (tmp_path / "a").write_text("".join(texts[:2]))
    (tmp_path / "b").write_text("".join(texts[2:]) + texts[1][:20])
    found = read_lines([tmp_path / "a", tmp_path / "b"])
    assert found.to_pylist() == of_lines(lines).to_pylist()
    assert found.schema == TRUTH
    assert trades_at(found, [1, 2]) == [trade("1.10"), trade("2", 2)]


def test_nothing_is_a_table_without_rows(tmp_path: Path) -> None:
    """No file, and a file with half a line."""
    (tmp_path / "a").write_text('{"event":')
    assert read_lines([]).num_rows == read_lines([tmp_path / "a"]).num_rows == 0
    assert len(keys(pa.Table.from_batches([], schema=TRUTH), with_id=True)) == 0
