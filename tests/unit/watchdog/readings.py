"""Two streams that run and are caught up, as their sources tell it now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from k2.registry.observed import Checkpoint, Driver, DriverState, Head, Wanted

A, B = "bronze_binance", "bronze_kraken"
LAUNCHED = datetime.now(UTC) - timedelta(minutes=5)
WANTED = Wanted("running", 1, 1, 1, LAUNCHED, LAUNCHED, LAUNCHED, 0)
DRIVER = Driver(DriverState.RUNNING, fence=1, started_at=LAUNCHED)
DEAD = replace(DRIVER, state=DriverState.EXITED, exit_code=-9)
CHECKPOINT = Checkpoint("q", 3, 3, LAUNCHED, {"t": {"0": 1}})
HEAD = Head({"t": {"0": 1}}, 0, 0.0)
