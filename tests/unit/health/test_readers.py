"""Readings as results: what is known, what is unknown, and who keeps quiet."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from k2.health import readers
from k2.health.checks import Check, Status, unknown
from k2.registry.observed import Checkpoint, Driver, DriverState, Head, Observation, Reading, Wanted
from k2.registry.runtime import Runtime

from ...stacks import absent

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    (tmp_path / "run").mkdir()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "postgres_control").write_text("nobody listens on port 1")
    return absent(tmp_path)


def observation(*, head: Head | None = None, head_error: str | None = None) -> Observation:
    return Observation(
        stream="bronze_binance",
        at=NOW,
        wanted=Reading(NOW, Wanted("running", 1, 1)),
        driver=Reading(NOW, Driver(DriverState.RUNNING, 1)),
        status=Reading(NOW, error="not asked"),
        checkpoint=Reading(NOW, Checkpoint("q", 5, 5, NOW, {})),
        head=Reading(NOW, head, head_error),
    )


def test_lag_of_a_stream(runtime: Runtime) -> None:
    """Rows and seconds behind come from the head of the source."""
    found = {r.check: r for r in readers.judge_lag(runtime, observation(head=Head({}, 10_001, 60.0)))}
    assert (found[Check.LAG_ROWS].value, found[Check.LAG_ROWS].status) == (10_001, Status.RED)
    assert found[Check.LAG_SECONDS].status is Status.GREEN


def test_batches_and_size_come_from_the_checkpoint(runtime: Runtime) -> None:
    """The median of the last batches against the trigger of 10 s; a stream without a checkpoint is unknown."""
    for number, seconds in enumerate((11.0, 12.0, 300.0)):
        for log, at in (("offsets", NOW), ("commits", NOW + timedelta(seconds=seconds))):
            file = runtime.checkpoint("bronze_binance") / log / str(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("v1")
            os.utime(file, (at.timestamp(), at.timestamp()))
    found = {(r.check, r.subject): r for r in readers.read_checkpoints(runtime, NOW)}
    batch = found[Check.BATCH_DURATION, "bronze_binance"]
    assert (batch.value, batch.status, batch.evidence) == (120.0, Status.RED, "12.0 of 10 s, median of the last 3 batches")
    assert found[Check.CHECKPOINT_SIZE, "bronze_binance"].status is Status.GREEN
    assert {found[check, "silver_kraken"].status for check in (Check.BATCH_DURATION, Check.CHECKPOINT_SIZE)} == {Status.UNKNOWN}


def test_a_silent_source_is_unknown_and_says_why(runtime: Runtime) -> None:
    """A head that could not be read is neither lag 0 nor red."""
    found = {r.check: r for r in readers.judge_lag(runtime, observation(head_error="Kafka did not answer"))}
    assert {r.status for r in found.values()} == {Status.UNKNOWN}
    assert found[Check.LAG_ROWS].evidence == "Kafka did not answer"


@pytest.mark.parametrize(
    ("wanted", "quiet"),
    [
        (Wanted("stopped", 2, 1, intent_at=NOW - timedelta(days=1)), True),
        (Wanted("running", 1, 0), True),
        (Wanted("running", 1, 1, intent_at=NOW - timedelta(minutes=9)), True),
        (Wanted("running", 1, 1, intent_at=NOW - timedelta(minutes=11)), False),
    ],
)
def test_who_keeps_quiet(wanted: Wanted, quiet: bool) -> None:
    """Stopped on purpose, never started, or started within ten minutes."""
    assert (readers.quiet(wanted, NOW) is not None) == quiet


def test_a_failing_reader_blinds_its_own_checks_only(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check of every subject is in the report, those of the failing source as unknown."""
    calls = ("read_streams", "read_driver_memory", "read_process_memory", "read_checkpoints", "read_dlq", "read_freshness")

    def fail(runtime: Runtime, now: datetime) -> list[object]:
        raise ConnectionError("away")

    for name in calls:
        monkeypatch.setattr(readers, name, fail)
    found = readers.examine(runtime, NOW)
    assert {r.evidence for r in found if r.check is not Check.DISK} == {"ConnectionError: away"}
    assert all(r.status is Status.UNKNOWN for r in found if r.check is not Check.DISK)
    assert {r.check for r in found} == set(Check)
    assert {r.subject for r in found if r.check is Check.LAG_ROWS} == set(runtime.platform.streams)
    assert [r.status is Status.UNKNOWN for r in found if r.check is Check.DISK] == [False]


def test_only_processes_that_were_asked_for_are_judged(runtime: Runtime) -> None:
    """With the real exchanges nobody misses the simulator; without a record of what was asked, all are judged."""
    assert readers._wanted_processes(runtime) == list(runtime.platform.processes)
    (runtime.run / "wanted.json").write_text(json.dumps({"services": ["kafka", "postgres", "airflow_setup"]}))
    assert readers._wanted_processes(runtime) == ["postgres", "kafka"]


def append(rows: dict[str, str], *, minutes_ago: float, operation: str = "append") -> SimpleNamespace:
    """A snapshot as pyiceberg gives it."""
    at = NOW - timedelta(minutes=minutes_ago)
    summary = SimpleNamespace(operation=SimpleNamespace(value=operation), additional_properties=rows)
    return SimpleNamespace(timestamp_ms=int(at.timestamp() * 1000), summary=summary)


def tables(monkeypatch: pytest.MonkeyPatch, **snapshots: list[SimpleNamespace]) -> None:
    """The catalog holds these tables and no others."""

    def open_table(runtime: Runtime, name: str, role: str) -> SimpleNamespace | None:
        assert role == "reader"
        return SimpleNamespace(metadata=SimpleNamespace(snapshots=snapshots[name])) if name in snapshots else None

    monkeypatch.setattr("k2.catalog.open_table", open_table)


def batch(silver: int, dlq: int, **more: float) -> SimpleNamespace:
    return append({"k2.rows-silver": str(silver), "k2.rows-dlq": str(dlq), "added-records": str(silver)}, **{"minutes_ago": 5, **more})  # type: ignore[arg-type]


def test_dlq_rate_of_the_window(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both numbers are sums over the same 24 h; what is older, and compaction, does not count; each exchange for itself."""
    yesterday, compaction = batch(0, 1000, minutes_ago=25 * 60), append({}, minutes_ago=30, operation="replace")
    tables(monkeypatch, silver_binance_trades=[yesterday, batch(950, 30, minutes_ago=60), compaction, batch(20, 0)], silver_kraken_trades=[batch(5, 0)])
    found = {r.subject: r for r in readers.read_dlq(runtime, NOW)}
    assert (found["binance"].value, found["binance"].status) == (3.0, Status.RED)
    assert found["binance"].evidence == "30 of 1,000 rows in the last 1.0 h"
    assert found["kraken"].status is Status.GREEN


def test_dlq_rate_needs_the_word_of_every_commit(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that does not say how it split its rows, and a table that does not exist, make the rate unknown."""
    tables(monkeypatch, silver_binance_trades=[batch(10, 0), append({"added-records": "5"}, minutes_ago=1)])
    assert {r.subject: r.status for r in readers.read_dlq(runtime, NOW)} == {"binance": Status.UNKNOWN, "kraken": Status.UNKNOWN}


def test_freshness_is_the_age_of_the_newest_rows(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty commit is no fresh row, and a commit a moment ahead of our clock is no negative age."""
    tables(monkeypatch, bronze_binance_trades=[batch(5, 0, minutes_ago=6), batch(0, 0, minutes_ago=0)], bronze_kraken_trades=[batch(5, 0, minutes_ago=-0.1)])
    found = {r.subject: r for r in readers.read_freshness(runtime, NOW)}
    assert (found["bronze_binance_trades"].value, found["bronze_binance_trades"].status) == (360.0, Status.RED)
    assert (found["bronze_kraken_trades"].value, found["bronze_kraken_trades"].status) == (0.0, Status.GREEN)
    assert found["silver_binance_trades"].status is Status.UNKNOWN
    assert "silver_dlq_trades" not in found


def test_memory_of_drivers(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the budget of the stream; one that does not run, or was not measured yet, is unknown."""
    drivers = {
        "bronze_binance": [Driver(DriverState.RUNNING, 3, memory_mb=1200.0), Driver(DriverState.RUNNING, 2, memory_mb=1.0)],
        "bronze_kraken": [Driver(DriverState.EXITED, 1, memory_mb=None)],
        "silver_binance": [Driver(DriverState.RUNNING, 1, memory_mb=None)],
    }

    class Agent:
        def __init__(self, runtime: Runtime) -> None: ...

        def __enter__(self) -> Agent:
            return self

        def __exit__(self, *_: object) -> None: ...

        def drivers(self) -> dict[str, list[Driver]]:
            return drivers

    monkeypatch.setattr("k2.launchers.client.AgentClient", Agent)
    found = {r.subject: r for r in readers.read_driver_memory(runtime, NOW)}
    assert (found["bronze_binance"].evidence, found["bronze_binance"].status) == ("1,200 of 1,300 MiB", Status.RED)
    assert {found[s].status for s in ("bronze_kraken", "silver_binance", "silver_kraken")} == {Status.UNKNOWN}


def test_mute_reaches_what_a_stream_feeds(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped Silver stream quiets its tables and its exchange's DLQ rate, and nothing of the other exchange."""
    from contextlib import nullcontext

    wanted = {name: Wanted("running", 1, 1, intent_at=NOW - timedelta(days=1)) for name in runtime.platform.streams}
    wanted["silver_kraken"] = Wanted("stopped", 2, 1, intent_at=NOW - timedelta(days=1))
    monkeypatch.setattr("k2.state.database.connect", lambda runtime, role: nullcontext())
    monkeypatch.setattr("k2.state.streams.wanted_all", lambda connection: wanted)
    subjects = ["silver_kraken", "silver_kraken_trades", "kraken", "silver_binance", "binance", "bronze_kraken_trades"]
    found = readers.mute(runtime, [unknown(Check.FRESHNESS, s, "") for s in subjects], NOW)
    assert [r.subject for r in found if r.muted] == ["silver_kraken", "silver_kraken_trades", "kraken"]
