"""The benchmark of the DAG files measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.bench import parse


def test_measures_the_import_and_nothing_else(tmp_path: Path) -> None:
    """A file that sleeps for 50 ms takes at least so long, whatever Airflow's own import took, and far less than that import."""
    slow = tmp_path / "slow_dag.py"
    slow.write_text("import time\ntime.sleep(0.05)\n")
    (named, bare, figure) = parse.run(rounds=1, files=[slow]).figures
    assert (named.what, figure.what) == ("slowest dag file", "slow_dag.py")
    assert 50 <= named.value == figure.value < 500
    assert bare.what == "slowest dag file after a bare import airflow.sdk" and bare.value >= 50
    assert named.rival_value is not None and named.ratio == pytest.approx(named.value / named.rival_value, rel=0.01)


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    """A file that cannot be imported is no fast file."""
    broken = tmp_path / "broken_dag.py"
    broken.write_text("import nothing_of_this_name\n")
    with pytest.raises(RuntimeError, match="nothing_of_this_name"):
        parse.run(rounds=1, files=[broken])


def test_all_dag_files_are_measured() -> None:
    """The seven DAGs of the platform."""
    assert len(parse.dag_files()) == 7
