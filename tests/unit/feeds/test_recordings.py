"""Reading a folder of recordings, fitting the generator to it, and replaying it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from k2.feeds import fit
from k2.feeds.simulator.model import load_market_model
from k2.feeds.simulator.recordings import NoRecordings, RecordedMessage, Recording, read_recordings, symbols
from k2.feeds.simulator.replay import Replay
from k2.feeds.trades import Trade


def recording(times_us: list[int], file: str = "a") -> Recording:
    trades = [Trade("kraken", "BTC/USD", None, "1.5", "2.5", "b", "l", t) for t in times_us]
    return Recording(file, "kraken", tuple(RecordedMessage(t.time_us + 40_000, (t,)) for t in trades), True)


def play(replay: Replay) -> list[tuple[int, Trade]]:
    played = []
    while (due := replay.next_due()) is not None:
        planned = replay.take()
        assert planned.due_us == due
        played += [(due, trade) for trade in planned.trades]
    return played


def test_folder_is_read_whole(recordings_folder: Path) -> None:
    """Three recordings with their trades, and the symbols that a feed needs for them; the ticker session is none."""
    recordings = read_recordings(recordings_folder)
    assert {r.file: len(r.trades) for r in recordings} == {
        "binance_spot_btcusdt_trade_ws.txt.gz": 19_904,
        "kraken_ws_v1_trade_xbtusd.txt": 28,
        "kraken_xbtusd_trades_2019.csv": 2_672,
    }
    assert symbols(recordings) == {"binance": ("BTCUSDT",), "kraken": ("ALGO/BTC", "BTC/USD", "DASH/EUR")}


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    """The error names the folder and the names that it expects."""
    with pytest.raises(NoRecordings, match=r"no recording in it: expected files named binance_\*"):
        read_recordings(tmp_path)


def test_a_broken_recording_is_named(tmp_path: Path) -> None:
    """A file of the right name and wrong content is an error, not an empty recording."""
    (tmp_path / "kraken_xbtusd_trades_2019.csv").write_text("time_ms,timestamp,side\nsoon,,b\n")
    with pytest.raises(NoRecordings, match="kraken_xbtusd_trades_2019.csv"):
        read_recordings(tmp_path)


def test_original_speed_keeps_the_spacing() -> None:
    """Messages are due with the recorded spacing, and each trade's time lies just before its message."""
    played = play(Replay([recording([5_000_000, 5_250_123, 9_000_000])]))
    assert [trade.time_us for _, trade in played] == [0, 250_123, 4_000_000]
    assert [due for due, _ in played] == [40_000, 290_123, 4_040_000]


@pytest.mark.parametrize("speed", [2, 60, 10_000])
def test_fast_replay_lies_in_the_past(speed: float) -> None:
    """At any speed the trades keep their spacing and none happens after it is sent."""
    played = play(Replay([recording([10**15 + t for t in (0, 1_500_000, 3_600_000_000)])], speed))
    times = [trade.time_us for _, trade in played]
    assert [b - a for a, b in zip(times, times[1:], strict=False)] == [1_500_000, 3_598_500_000]
    assert all(trade.time_us <= due for due, trade in played)
    assert played[-1][0] <= 3_600_100_000 / speed


def test_recordings_play_side_by_side() -> None:
    """All begin together; every trade comes once, in order of time."""
    played = play(Replay([recording([1_000_000, 3_000_000], "a"), recording([500_000_000, 501_000_000], "b")]))
    assert [trade.time_us for _, trade in played] == [0, 0, 1_000_000, 2_000_000]


def test_replay_of_the_recordings_changes_nothing_but_times(recordings_folder: Path) -> None:
    """Ids, prices, quantities, sides and order types of every trade are the recorded ones, and the times all moved by one step per file."""
    for one in read_recordings(recordings_folder):
        replay = Replay([one], 100)
        played = Counter((t.symbol, t.id, t.price, t.quantity, t.side, t.order_type, t.time_us - replay.shifts_us[one.file]) for _, t in play(replay))
        assert played == Counter((t.symbol, t.id, t.price, t.quantity, t.side, t.order_type, t.time_us) for t in one.trades)


def test_groups() -> None:
    """A group is a run of one side whose neighbours are near."""
    trades = [Trade("kraken", "BTC/USD", None, "1", "1", side, "l", t) for side, t in [("b", 0), ("b", 9), ("s", 9), ("s", 30), ("s", 40)]]
    assert [len(group) for group in fit.groups_of(trades, 10)] == [2, 1, 2]


def test_memory() -> None:
    """Values that come in runs remember; alternating ones do the opposite; one value has no memory."""
    assert fit.memory([1.0] * 50 + [9.0] * 50 + [1.0] * 50) > 0.8
    assert fit.memory([1.0, 9.0] * 50) < -0.9
    assert fit.memory([4.0] * 10) == 0


def test_committed_numbers_are_those_of_the_recordings(recordings_folder: Path) -> None:
    """Fitting again gives include/config/market_model.yaml."""
    assert fit.fit(read_recordings(recordings_folder)) == load_market_model()
