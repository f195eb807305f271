"""The benchmark of the pruning, with few files."""

from __future__ import annotations

from k2.bench import prune


def test_it_measures_what_is_right() -> None:
    """Ours and find see the same files; the plan names every leftover, or the run fails."""
    report = prune.run(rounds=1, sizes=(5_000, 10_000))
    assert [figure.what for figure in report.figures] == ["10,000 files", "5,000 files", "peak memory, 5,000 files", "peak memory, 10,000 files"]
    assert all(figure.value > 0 for figure in report.figures) and report.figures[0].ratio is not None
