"""A running stream that is caught up, as the watchdog would see it; each test changes what it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from k2.registry.observed import (
    Action,
    Checkpoint,
    Decision,
    Driver,
    DriverState,
    Head,
    Observation,
    QueryStatus,
    Reading,
    Verdict,
    Wanted,
)
from k2.registry.platform import Restart, Stream, load_platform
from k2.supervision.conclude import READING_LIMIT
from k2.supervision.judge import judge

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STREAM = "bronze_binance"
SPEC: Stream = load_platform().streams[STREAM]
RESTART: Restart = load_platform().restart


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


WANTED = Wanted("running", 2, 5, launch_generation=2, intent_at=ago(101), launched_at=ago(100), first_commit_at=ago(90), first_commit_batch=7)
DRIVER = Driver(DriverState.RUNNING, fence=5, pid=10, started_at=ago(100))
DIED = replace(DRIVER, state=DriverState.EXITED, exit_code=-9, ended_at=ago(1))
STATUS = QueryStatus(STREAM, 5, "q", "r", 8, "Waiting for data to arrive", "running", None, ago(3), 0.4, 0)
CHECKPOINT = Checkpoint("q", 9, 9, ago(2), {"topic": {"0": 7}})
HEAD = Head({"topic": {"0": 7}}, lag_rows=0, lag_seconds=0.0)


def seen(*, age: float = 0.1, **parts: Any) -> Observation:
    readings: dict[str, Reading[Any]] = {}
    for name, value in {"wanted": WANTED, "driver": DRIVER, "status": STATUS, "checkpoint": CHECKPOINT, "head": HEAD, **parts}.items():
        if name != "others":
            readings[name] = value if isinstance(value, Reading) else Reading(ago(age), value)
    return Observation(STREAM, NOW, others=parts.get("others", ()), **readings)


def decide(**parts: Any) -> Decision:
    return judge(SPEC, seen(**parts), RESTART, NOW)


def verdict(**parts: Any) -> tuple[Verdict, Action]:
    found = decide(**parts)
    return found.verdict, found.action


SILENT = Reading[Any](ago(0.1), error="AgentUnavailable: connection refused")
OLD = READING_LIMIT.total_seconds() + 1
