"""The poll over a real database and a real host agent: changes are told once, and no source's failure ends it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from k2 import watchdog
from k2.registry.observed import Action, Decision, Verdict
from k2.state import database, incidents, streams, watchers
from k2.supervision import memory as supervision_memory
from k2.watchdog import memory as watchdog_memory

STREAM = "bronze_binance"
Watched = Any


@pytest.fixture
def poll(watched: Watched) -> Iterator[watchdog.Poll]:
    made = watchdog.Poll(watched.runtime)
    yield made
    made.close()


def ticks(poll: watchdog.Poll, count: int, wait: float = 0.1) -> list[tuple[str, Action]]:
    return [(d.stream, d.action) for _ in range(count) for d in poll.tick(wait)]


def test_the_poll_reports_changes_once(watched: Watched, poll: watchdog.Poll) -> None:
    """What must be started is told once; a death is told within a fraction of a second, and its recovery when it commits."""
    assert sorted(ticks(poll, 3)) == sorted((name, Action.START) for name in watched.names)
    watched.up()
    ticks(poll, 5)
    assert ticks(poll, 5) == []
    before = datetime.now(UTC)
    threading.Timer(0.2, os.kill, (watched.pid(), signal.SIGKILL)).start()
    fired: list[Decision] = []
    watched.home.wait_until(lambda: fired.extend(poll.tick(5)) or fired, "the death is told", seconds=10)
    assert [(d.stream, d.verdict, d.action) for d in fired] == [(STREAM, Verdict.DEAD, Action.START)]
    assert timedelta(0) < fired[0].detected_at - before < timedelta(seconds=4), "before the wait was over"
    assert len(watched.incidents()) == 1 and ticks(poll, 3) == []
    watched.watch()
    assert watched.ledger()[-1]["detected_at"] == fired[0].detected_at, "the run that acts keeps the poll's moment"
    assert ticks(poll, 3) == []
    watched.commit(STREAM, 1)
    recovered: list[Decision] = []
    watched.home.wait_until(lambda: recovered.extend(poll.tick(0.1)) or recovered, "the recovery is told")
    assert [(d.stream, d.verdict) for d in recovered] == [(STREAM, Verdict.IDLE)]
    assert watched.incidents()[0]["resolved_at"] is not None


def test_the_poll_survives_its_sources(watched: Watched, poll: watchdog.Poll) -> None:
    """Agent and database away, in turn: the poll goes on, reports nothing, says what is silent, and recovers."""
    watched.up()
    ticks(poll, 10)
    watched.home.kill_agent()
    assert ticks(poll, 5) == []
    with database.connect(watched.runtime, "reader") as connection:
        (seen,) = [w for w in watchers.watchers(connection) if w["watcher"] == "poll"]
        assert "driver: AgentUnavailable" in seen["detail"]
        assert incidents.open_incidents(connection) == []
    watched.home.start_agent()
    assert ticks(poll, 5) == []
    with database.connect(watched.runtime, "admin") as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'k2_control'")
    assert ticks(poll, 5) == []
    watched.kill("silver_kraken")
    fired: list[Decision] = []
    watched.home.wait_until(lambda: fired.extend(poll.tick(0.2)) or fired, "the death is told")
    assert [d.stream for d in fired] == ["silver_kraken"]
    with database.connect(watched.runtime, "reader") as connection:
        (seen,) = [w for w in watchers.watchers(connection) if w["watcher"] == "poll"]
        assert "AgentUnavailable" not in seen["detail"]


def test_a_poll_that_backs_off_is_an_incident_until_it_looks_again(watched: Watched) -> None:
    """Not in the first look of a platform; with the poll's own reason; resolved by the run that finds it back."""
    with database.connect(watched.runtime, "admin") as connection:
        watchers.looked(connection, "poll")
        watchers.failing(connection, "poll", "3 polls in a row failed: away")
        connection.execute("UPDATE k2.watchers SET seen_at = seen_at - interval '61 s'")
    watched.look()
    assert watched.incidents() == []
    watched.look()
    (incident,) = watched.incidents()
    assert (incident["key"], incident["severity"]) == ("watchers:poll", "ticket") and "3 polls in a row failed: away" in incident["detail"]
    with database.connect(watched.runtime, "control") as connection:
        watchers.looked(connection, "poll")
    watched.look()
    assert watched.incidents()[0]["resolved_at"] is not None


def test_the_database_tells_the_poll_what_changed(watched: Watched, poll: watchdog.Poll) -> None:
    """A wish is seen by the next tick, not by the next whole reading; a stream that is held by a frozen commit delays nothing."""
    watched.up()
    ticks(poll, 5)
    watched.want("stopped")
    assert ticks(poll, 1, 0) == [(STREAM, Action.STOP)]
    with database.connect(watched.runtime, "admin") as holder:
        holder.execute("SELECT 1 FROM k2.streams WHERE stream = 'silver_kraken' FOR SHARE")
        watched.commit("silver_kraken", 1)
        begun = time.monotonic()
        watched.look()
        assert time.monotonic() - begun < 5
    watched.look()
    with database.connect(watched.runtime, "reader") as connection:
        assert streams.wanted(connection, "silver_kraken").known_batch == 1


def test_a_driver_that_runs_out_of_memory_pages(watched: Watched, poll: watchdog.Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the host agent measures it; over as soon as it uses less."""
    monkeypatch.setattr(supervision_memory, "LASTS", timedelta(0))
    monkeypatch.setattr(supervision_memory, "limit_mb", lambda platform, stream: 1.0 if stream == STREAM else 10_000.0)
    monkeypatch.setattr(watchdog_memory, "LOOK_EVERY_SECONDS", 0.1)
    watched.up()

    def page() -> dict[str, Any] | None:
        ticks(poll, 1)
        return next((i for i in watched.incidents() if i["key"] == f"memory:{STREAM}"), None)

    watched.home.wait_until(page, "it is told", seconds=30)
    told = page()
    assert told is not None and (told["severity"], told["title"]) == ("page", f"Stream {STREAM} runs out of memory") and "restart" in told["detail"]
    monkeypatch.setattr(supervision_memory, "limit_mb", lambda platform, stream: 10_000.0)
    watched.home.wait_until(lambda: (found := page()) and found["resolved_at"], "it is over", seconds=30)
    assert [i["key"] for i in watched.incidents() if i["key"].startswith("memory:")] == [f"memory:{STREAM}"]
