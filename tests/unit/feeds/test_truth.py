"""The simulator's truth: nothing sent is missing from it, and ids go on after any end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.simulator.truth import Truth, read_truth, trade_line, truth_files
from k2.feeds.trades import Trade


def trade(number: int) -> Trade:
    return Trade("binance", "BTCUSDT", number, "61837.63000000", "0.02000000", "s", None, 1_000 * number)


def lines(first: int, count: int) -> list[dict]:
    return [trade_line(trade(n), n, 0) for n in range(first, first + count)]


def test_a_line_is_the_trade(tmp_path: Path) -> None:
    """What is written reads back as the same trade, message number and place."""
    truth = Truth(tmp_path, "binance")
    truth.append([trade_line(trade(5), 9, 2)])
    (line,) = read_truth(tmp_path, "binance")
    assert (Trade(*(line[name] for name in Trade.__slots__)), line["message"], line["index"]) == (trade(5), 9, 2)


@pytest.mark.parametrize("clean", [True, False])
def test_ids_go_on(tmp_path: Path, clean: bool) -> None:
    """After a clean end, and after one in which the ledger was never saved, the next id and message follow the last ones."""
    truth = Truth(tmp_path, "binance")
    truth.append(lines(1, 3))
    if clean:
        truth.close()
    again = Truth(tmp_path, "binance")
    assert (again.ledger.books["BTCUSDT"].next_id, again.ledger.next_message, again.ledger.trades) == (4, 4, 3)


def test_lines_after_the_saved_ledger_are_counted_once(tmp_path: Path) -> None:
    """What was appended after the last save is added on the next start, and what was before it is not added again."""
    truth = Truth(tmp_path, "binance")
    truth.append(lines(1, 3))
    truth.save()
    truth.append([*lines(4, 2), {"event": "fault", "kind": "drop", "at_us": 0, "message": 6}])
    ledger = Truth(tmp_path, "binance").ledger
    assert (ledger.trades, ledger.events) == (5, {"fault": 1})


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    """A last line without its end was never sent: it goes, and writing continues behind the whole lines."""
    truth = Truth(tmp_path, "binance")
    truth.append(lines(1, 2))
    with (tmp_path / "truth-binance.jsonl").open("a") as file:
        file.write('{"exchange":"binance","symbol":"BTCUSDT","id":3,')
    assert len(list(read_truth(tmp_path, "binance"))) == 2
    again = Truth(tmp_path, "binance")
    again.append(lines(3, 1))
    assert [line["id"] for line in read_truth(tmp_path, "binance")] == [1, 2, 3]


def test_old_files_are_put_aside_and_removed(tmp_path: Path) -> None:
    """Files are cut at their size, read in order, and only the newest are kept."""
    truth = Truth(tmp_path, "binance", segment_bytes=1000, keep=2)
    for number in range(1, 41):
        truth.append(lines(number, 1))
    assert len(truth_files(tmp_path, "binance")) == 3
    ids = [line["id"] for line in read_truth(tmp_path, "binance")]
    assert ids == list(range(ids[0], 41))
    assert 1 < ids[0] < 40
    assert Truth(tmp_path, "binance").ledger.trades == 40


def test_killed_while_putting_a_file_aside(tmp_path: Path) -> None:
    """Between the rename and the next save, the younger file's lines are counted from its beginning."""
    truth = Truth(tmp_path, "binance", segment_bytes=400)
    truth.append(lines(1, 3))
    truth.append(lines(4, 1))
    assert len(truth_files(tmp_path, "binance")) == 2
    ledger = Truth(tmp_path, "binance").ledger
    assert (ledger.trades, ledger.next_message) == (4, 5)


def test_begin_ids_never_goes_back(tmp_path: Path) -> None:
    """A book begins at its first id, or goes on where it was."""
    ledger = Truth(tmp_path, "binance").ledger
    ledger.begin_ids("BTCUSDT", 100)
    ledger.begin_ids("BTCUSDT", 7)
    assert ledger.books["BTCUSDT"].next_id == 100


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=12))
def test_any_order_of_appends_saves_and_kills(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]]) -> None:
    """However often it is killed or saved in between, the ledger counts every line once."""
    folder, sent = tmp_path_factory.mktemp("truth"), 0
    for count, save in steps:
        truth = Truth(folder, "binance", segment_bytes=700, keep=100)
        truth.append(lines(sent + 1, count))
        sent += count
        if save:
            truth.save()
    ledger = Truth(folder, "binance").ledger
    assert (ledger.trades, ledger.next_message) == (sent, sent + 1)
