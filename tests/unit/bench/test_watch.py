"""The arithmetic of bench watch, and that its world is what it stands for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from k2.bench import watch, watched_world
from k2.bench.plain_watch import tail
from k2.checkpoints.reader import read_tail
from k2.probes.iceberg import main_branch

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_look_is_late_by_what_is_beyond_the_period() -> None:
    """Early and punctual ones are not late at all."""
    seen = {"a": [T0, T0 + timedelta(seconds=10), T0 + timedelta(seconds=22.5)], "b": [T0, T0 + timedelta(seconds=4)], "c": [T0]}
    assert watch.lateness(seen, 10) == [0.0, 2.5, 0.0]


def test_figures_name_sizes_and_rival() -> None:
    """The figure of a thousand streams stands against the rival's, and the line has every size."""
    ours, rival, small = watch.Watched(), watch.Watched(), watch.Watched()
    ours.cpu, ours.late, ours.told = [4.0, 5.0, 6.0], [0.0] * 98 + [0.5, 0.5], [0.2]
    rival.cpu, rival.late, small.cpu, small.late = [40.0], [2.0, 2.0], [1.0], [0.1]
    found = {figure.what: figure for figure in watch.figures(ours, rival, {100: small})}
    share = found["cpu share of a core at 1000 streams"]
    assert (share.value, share.unit, share.rival, share.rival_value, share.ratio) == (5.0, "%", watch.RIVAL, 40.0, 0.125)
    assert found["p99 lateness"].rival_value == 2.0 and found["p99 lateness"].value == 0.5
    assert [figure.value for name, figure in found.items() if name.endswith(", line")] == [1.0, 5.0]


def test_a_checkpoint_of_the_world_is_read_as_a_real_one(tmp_path: Path) -> None:
    """A hundred batches, a new one each time, and the rival reads of it what the platform does."""
    watched_world.lay_out_checkpoint(tmp_path / "c", 100)
    found = read_tail(tmp_path / "c")
    assert (found.last_commit_batch, found.last_offset_batch) == (99, 99)
    assert watched_world.committed_snapshot(found) == 100
    watched_world.batch_files(tmp_path / "c", 100, 101)
    found = read_tail(tmp_path / "c")
    assert (found.last_commit_batch, watched_world.committed_snapshot(found)) == (100, 101) and tail(tmp_path / "c") == found


def test_metadata_of_the_world_is_a_branch_of_a_hundred(tmp_path: Path) -> None:
    """Newest first, linked by parents."""
    branch = main_branch(watched_world.metadata(250).encode())
    assert [branch[0].id, branch[-1].id, len(branch)] == [250, 151, 100]
