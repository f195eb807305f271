"""The demo's long forms, each on a platform of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from k2.stack.home import TREE

RECORDINGS = TREE.parent / "shared" / "data"


def demo(home: Path, *arguments: str, seconds: float) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("K2_RUNTIME", "AIRFLOW_HOME")} | {"K2_HOME": str(home), "COLUMNS": "200"}
    done = subprocess.run(["./k2", "demo", "--exit", *arguments], cwd=TREE, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_twenty_kills(tmp_path: Path) -> None:
    """Killed 20 times at random moments over all four drivers, every record is where it belongs, once."""
    output = demo(tmp_path / "home", "--kills", "20", seconds=1700)
    assert output.count("kill -9 ") >= 20 and "Nothing lost, nothing doubled" in output


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"the recordings are not part of the project; put them into {RECORDINGS}")
def test_recordings(tmp_path: Path) -> None:
    """Recorded sessions play to their end, and every trade of theirs is in Silver."""
    output = demo(tmp_path / "home", "--replay", str(RECORDINGS), "--speed", "60", seconds=800)
    assert "Nothing lost, nothing doubled" in output and "+ DLQ 0" in output
    for exchange, trades in (("binance", "19,904"), ("kraken", "2,700")):
        assert f"Content: {trades} trades of {exchange} are in Silver with the id, price, quantity, side and time" in output
