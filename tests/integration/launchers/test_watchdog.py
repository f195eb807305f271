"""The watchdog over a real database and a real host agent; the drivers are small scripts, Kafka and tables are told."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from k2 import watchdog
from k2.airflow.watch import Watch, look_and_act
from k2.launchers import start as protocol
from k2.launchers.client import AgentClient
from k2.processes import ProcessId
from k2.registry.observed import Action, Decision, DriverState, Verdict
from k2.state import audit, database, streams
from k2.supervision import down as rules
from k2.supervision import judge, policy
from k2.watchdog import down as pages

STREAM = "bronze_binance"
Watched = Any


def test_a_fresh_platform_starts_commits_and_is_left_alone(watched: Watched) -> None:
    """Every stream is started once, its first commit is found in the checkpoint, and then nothing more is done."""
    assert {d.action for d in watched.look().values()} == {Action.START}
    done = watched.watch()
    assert set(done) == set(watched.names) and all(d.ok and d.fence == 1 for d in done.values())
    assert {d.verdict for d in watched.look().values()} == {Verdict.STARTING}
    assert watched.watch() == {}
    before = datetime.now(UTC)
    watched.home.wait_until(lambda: len(watched.home.starts()) == len(watched.names), "all jobs began")
    watched.kafka.end = 1
    for batch in (0, 1):
        for name in watched.names:
            watched.commit(name, batch)
    assert {d.verdict for d in watched.look().values()} == {Verdict.IDLE}
    (row,) = watched.ledger()
    assert (row["fence"], row["how"], row["first_commit_batch"], row["end_reason"]) == (1, "cold", 0, None)
    assert row["intent_at"] < row["launched_at"] < row["first_commit_at"] and row["first_commit_at"] >= before - timedelta(milliseconds=10)
    watched.kafka.end = 5
    assert watched.look()[STREAM].verdict is Verdict.PROGRESSING
    assert watched.incidents() == [] and watched.watch() == {}


def test_a_killed_driver_comes_back(watched: Watched) -> None:
    """Death, incident, successor with the next fence, first commit, resolution: each step is in the ledger."""
    watched.up()
    old = watched.kill()
    first, second = watched.look()[STREAM], watched.look()[STREAM]
    assert (first.verdict, first.action) == (Verdict.DEAD, Action.START)
    assert second.detected_at == first.detected_at, "a second look keeps the moment of the first"
    (incident,) = watched.incidents()
    assert (incident["key"], incident["severity"], incident["resolved_at"]) == (f"stream:{STREAM}", "ticket", None)
    assert "ended by signal 9" in incident["detail"]
    done = watched.watch()
    assert list(done) == [STREAM] and done[STREAM].fence == 2
    watched.home.wait_begun(len(watched.names) + 1)
    assert watched.pid() != old
    watched.kafka.end = 1
    assert watched.look()[STREAM].verdict is Verdict.STARTING
    assert watched.incidents()[0]["resolved_at"] is None
    watched.commit(STREAM, 1)
    assert watched.look()[STREAM].verdict is Verdict.IDLE
    dead, alive = watched.ledger()
    assert (dead["end_reason"], dead["exit_code"]) == ("died", -9)
    assert (alive["fence"], alive["first_commit_batch"]) == (2, 1)
    assert dead["ended_at"] <= alive["detected_at"] <= alive["intent_at"] <= alive["launched_at"] <= alive["first_commit_at"]
    assert alive["detected_at"] == first.detected_at
    (incident,) = watched.incidents()
    assert incident["resolved_at"] is not None and "fence 2" in incident["resolution"]


def test_streams_that_stay_down_page_once_for_all_that_died_at_one_time(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart should have mended it within minutes. Until then they are one ticket, which says so; Silver, which lives, is no part of it."""
    watched.up()
    for stream in ("bronze_binance", "bronze_kraken"):
        watched.kill(stream)
    watched.look()
    (ticket,) = watched.incidents()
    assert (ticket["key"], ticket["severity"]) == ("stream:bronze_binance", "ticket")
    assert ticket["evidence"] == "Others that died within a minute: bronze_kraken"
    for module in (rules, pages):
        monkeypatch.setattr(module, "PAGE_AFTER", timedelta(0))
    for _ in range(2):
        watched.look()
        ticket, page = watched.incidents()
        assert (ticket["resolved_at"] is not None, page["key"], page["severity"], page["resolved_at"]) == (
            True,
            "down:bronze_binance:bronze_kraken",
            "page",
            None,
        )
        assert page["title"] == "Streams bronze_binance, bronze_kraken stay down" and "ended by signal 9" in page["detail"]
    watched.watch()
    watched.kafka.end = 1
    watched.commit("bronze_binance", 1)
    watched.look()
    (page,) = [i for i in watched.incidents() if i["resolved_at"] is None]
    assert (page["key"], page["title"]) == ("down:bronze_binance:bronze_kraken", "Stream bronze_kraken stays down"), "the same page"
    watched.commit("bronze_kraken", 1)
    watched.look()
    assert [i["key"] for i in watched.incidents() if i["resolved_at"] is None] == []


def test_an_urgent_look_waits_for_no_broker(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the streams that need an action and records them, and asks neither Kafka nor a driver for it."""
    watched.up()
    with monkeypatch.context() as looking:
        looking.setattr(watched.kafka, "ends", lambda self, topics: pytest.fail("Kafka was asked"))
        assert watchdog.urgent(watched.runtime) == []
        watched.kill()
        (found,) = watchdog.urgent(watched.runtime)
    assert (found.decision.stream, found.decision.verdict, found.decision.action) == (STREAM, Verdict.DEAD, Action.START)
    assert len(watched.incidents()) == 1
    assert [done.fence for done in watchdog.act(watched.runtime, [found.decision])] == [2]
    assert watched.ledger()[-1]["detected_at"] == found.decision.detected_at
    assert watchdog.urgent(watched.runtime) == []


def test_a_stream_that_dies_while_another_drains_is_started(watched: Watched) -> None:
    """By the run that drains, which takes as long as the drain does."""
    watched.home.mode("deaf")
    watched.up()
    watched.want("stopped", "silver_kraken")
    runs: list[Watch] = []
    run = threading.Thread(target=lambda: runs.append(look_and_act(watched.runtime)))
    run.start()
    watched.home.wait_until(lambda: watched.home.newest("silver_kraken").asked, "it was asked to stop")
    watched.kill()
    watched.home.wait_until(lambda: watched.home.newest().fence == 2, "the other was started again")
    assert run.is_alive() and not watched.home.has_exited("silver_kraken")
    watched.kill("silver_kraken")
    run.join()
    assert {(d.stream, d.action, d.ok) for d in runs[0].done} == {("silver_kraken", Action.STOP, True), (STREAM, Action.START, True)}


def test_a_second_death_waits_and_is_forgiven_later(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start after a death is immediate, the second waits for its backoff; commits and minutes forgive."""
    monkeypatch.setattr(policy, "backoff", lambda _, deaths: timedelta(minutes=deaths - 1))
    watched.up()
    watched.kill()
    watched.watch()
    watched.kill()
    waiting = watched.look()[STREAM]
    assert (waiting.verdict, waiting.action) == (Verdict.DEAD, Action.WAIT)
    assert waiting.not_before is not None and waiting.not_before > datetime.now(UTC)
    assert watched.watch() == {}
    watched.want("running")
    assert watched.watch()[STREAM].fence == 3
    for batch in (1, 2, 3):
        watched.commit(STREAM, batch)
    watched.look()
    with database.connect(watched.runtime, "control") as connection:
        assert streams.wanted(connection, STREAM).deaths == 2
        connection.execute("UPDATE k2.launches SET first_commit_at = first_commit_at - interval '11 minutes' WHERE fence = 3")
    watched.look()
    with database.connect(watched.runtime, "control") as connection:
        assert streams.wanted(connection, STREAM).deaths == 0


def test_watchdogs_that_act_at_once_start_one_driver(watched: Watched) -> None:
    """Four watchdogs with the same decisions: one start per stream, and the losers say that nothing was left to do."""
    decisions = list(watched.look().values())
    results: list[list[watchdog.Done]] = []
    threads = [threading.Thread(target=lambda: results.append(watchdog.act(watched.runtime, decisions))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watched.home.wait_until(lambda: len(watched.home.starts()) == len(watched.names), "all jobs began")
    assert all(done.ok for result in results for done in result), results
    assert sorted(tag for tag, _ in watched.home.starts()) == sorted(f"{name}#1" for name in watched.names)
    assert [row["fence"] for row in watched.ledger()] == [1]
    assert watched.watch() == {}


def test_stop_and_start_on_request(watched: Watched) -> None:
    """A stopped stream drains, stays down and is no incident; a start brings it back with the next fence."""
    watched.up()
    watched.want("stopped")
    done = watched.watch()
    assert list(done) == [STREAM] and done[STREAM].action is Action.STOP and "fence 1 drained" in done[STREAM].detail
    assert watched.look()[STREAM].verdict is Verdict.STOPPED
    assert watched.watch() == {} and watched.incidents() == []
    assert (watched.ledger()[-1]["end_reason"], watched.ledger()[-1]["drained"]) == ("stopped", True)
    watched.want("running")
    assert watched.watch()[STREAM].fence == 2


@pytest.mark.parametrize("desired", ["stopped", "running"])
def test_a_driver_that_cannot_drain_is_killed_and_the_ledger_says_so(watched: Watched, monkeypatch: pytest.MonkeyPatch, desired: str) -> None:
    """A frozen driver does not finish its batch: a stop and a restart end it at the deadline, and nobody is told that it drained."""
    watched.up()
    patient = watched.runtime.platform.restart
    monkeypatch.setitem(patient.__dict__, "drain_timeout_seconds", 1)
    since = datetime.now(UTC)
    os.kill(watched.pid(), signal.SIGSTOP)
    watched.want(desired)
    done = watched.watch()[STREAM]
    assert "did not drain, it was killed at the deadline (exit code -9)" in done.detail
    row = watched.ledger()[0]
    assert (row["end_reason"], row["drained"], row["exit_code"]) == ("replaced" if desired == "running" else "stopped", False, -9)
    with database.connect(watched.runtime, "reader") as connection:
        assert streams.end_since(connection, STREAM, since) == {"fence": 1, "drained": False, "exit_code": -9}
        assert streams.end_since(connection, STREAM, datetime.now(UTC)) is None


def test_the_audit_log_keeps_how_a_stream_stood(watched: Watched) -> None:
    """Before and after hold what is wanted, the fence, the verdict and the known checkpoint; adopting forgets that; rows stay as they are."""
    watched.up()
    with database.connect(watched.runtime, "control") as connection:
        streams.want(connection, STREAM, "running", who="ann", action="adopt", reason="restored", adopt=True, request="run 1", approved_by="bob")
        audit.record(connection, who="ann", action="adopt", target="bronze_kraken", reason="no", before={}, after={}, outcome="rejected", request="run 2")
    with database.connect(watched.runtime, "reader") as connection:
        (row,) = audit.recent(connection, STREAM)
        assert [found["target"] for found in audit.recent(connection)] == ["bronze_kraken", STREAM]
        assert [found["outcome"] for found in audit.recent(connection, limit=1)] == ["rejected"]
    common = {"desired": "running", "fence": 1, "verdict": "IDLE"}
    assert row["before"] == {**common, "generation": 1, "query_id": "q", "batch": 0}
    assert row["after"] == {**common, "generation": 2, "query_id": None, "batch": None}
    assert (row["who"], row["approved_by"], row["request"], row["outcome"]) == ("ann", "bob", "run 1", "recorded")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.audit SET who = 'nobody'")


def test_a_restart_replaces_the_driver(watched: Watched) -> None:
    """A newer generation drains the old driver, then starts its successor; one that does not drain is killed and told."""
    watched.up()
    old = watched.pid()
    watched.want("running")
    done = watched.watch()[STREAM]
    assert (done.action, done.fence) == (Action.REPLACE, 2) and "fence 1 drained" in done.detail
    assert ProcessId.of(old) is None and watched.pid() != old
    assert [(row["fence"], row["end_reason"]) for row in watched.ledger()] == [(1, "replaced"), (2, None)]
    assert watched.incidents() == []


def test_a_stream_stopped_with_the_platform_is_no_death(watched: Watched) -> None:
    """After stop-all and another start of the platform, streams come back without incident and without backoff."""
    watched.up()
    watched.home.client.stop_all(10)
    assert {d.verdict for d in watched.look().values()} == {Verdict.STARTING}
    assert {d.fence for d in watched.watch().values()} == {2}
    assert watched.incidents() == []
    with database.connect(watched.runtime, "control") as connection:
        assert streams.wanted(connection, STREAM).deaths == 0


def test_a_start_that_broke_off_after_the_intent_is_finished(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """An intent without a launch is left alone for a moment, then launched under its own fence, and old drivers end."""
    watched.up()
    old = watched.pid()
    with database.connect(watched.runtime, "control") as connection:
        streams.raise_fence(connection, STREAM, seen=1, generation=1, reason="test", detected_at=None)
    assert watched.look()[STREAM].action is Action.WAIT
    monkeypatch.setattr(judge, "INTENT_GRACE", timedelta(0))
    done = watched.watch()[STREAM]
    assert (done.fence, done.detail) == (2, "finished the start with fence 2 (cold)")
    assert ProcessId.of(old) is None
    assert [row["fence"] for row in watched.ledger()] == [1, 2]


def test_a_start_that_broke_off_after_the_launch_is_only_recorded(watched: Watched) -> None:
    """The agent has the driver, the ledger does not know: the look records it, the old driver is ended, and nothing is started."""
    watched.up()
    old = watched.pid()
    with database.connect(watched.runtime, "control") as connection:
        fence = streams.raise_fence(connection, STREAM, seen=1, generation=1, reason="test", detected_at=None)
    watched.home.client.launch(STREAM, fence)
    found = watched.look()[STREAM]
    assert (found.verdict, found.action) == (Verdict.SPLIT_BRAIN, Action.END_OLDER)
    assert watched.ledger()[-1]["launched_at"] is not None
    assert watched.watch()[STREAM].ok and ProcessId.of(old) is None
    assert watched.watch() == {}
    assert [row["fence"] for row in watched.ledger()] == [1, 2]


def test_a_driver_without_signs_of_life_is_replaced(watched: Watched) -> None:
    """Suspected at once, restarted when that has lasted, under a new fence, counted like a death, told, and resolved."""
    watched.up()
    old = watched.pid()
    watched.home.mode("quiet")
    found = watched.look()[STREAM]
    assert (found.verdict, found.action) == (Verdict.SUSPECT_DRIVER, Action.WAIT)
    assert watched.incidents() == []
    with database.connect(watched.runtime, "admin") as admin:
        admin.execute("UPDATE k2.verdicts SET since = since - interval '1 minute' WHERE stream = %s", (STREAM,))
    done = watched.watch()
    assert list(done) == [STREAM] and (done[STREAM].ok, done[STREAM].fence) == (True, 2)
    assert ProcessId.of(old) is None
    watched.home.mode("")
    hung, alive = watched.ledger()
    assert (hung["end_reason"], alive["detected_at"] < alive["intent_at"]) == ("hung", True)
    (incident,) = watched.incidents()
    assert incident["severity"] == "ticket" and incident["detail"].startswith("SUSPECT_DRIVER")
    watched.home.wait_until(lambda: watched.look()[STREAM].verdict is Verdict.IDLE, "its successor is well")
    assert watched.incidents()[0]["resolved_at"] is not None
    with database.connect(watched.runtime, "control") as connection:
        assert streams.wanted(connection, STREAM).deaths == 1


def test_a_driver_frozen_inside_its_commit_is_ended_first(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the old driver's session holds the stream's row, it is killed, which frees the row, and the start goes on."""
    watched.up()
    monkeypatch.setattr(protocol, "WAIT_MS", 200)
    with closing(psycopg.connect(**watched.runtime.conninfo("control"))) as frozen:
        frozen.execute("SELECT fence FROM k2.streams WHERE stream = %s FOR SHARE", (STREAM,))

        class Agent(AgentClient):
            def kill(self, stream: str, fence: int) -> int:
                frozen.close()
                return super().kill(stream, fence)

        with Agent(watched.runtime) as agent:
            started = protocol.start(watched.runtime, agent, STREAM, fence=1, generation=1, reason="test")
    assert started.fence == 2 and not started.adopted


def test_decisions_that_are_out_of_date_do_nothing(watched: Watched) -> None:
    """A decision made for another generation or fence starts and stops nothing."""
    watched.up()
    decision = Decision(STREAM, Verdict.DEAD, Action.START, "test", fence=0, generation=1)
    stop = Decision(STREAM, Verdict.STOPPING, Action.STOP, "test", fence=1, generation=7)
    for stale in (decision, Decision(STREAM, Verdict.DEAD, Action.START, "test", fence=1, generation=9), stop):
        (done,) = watchdog.act(watched.runtime, [stale])
        assert done.ok and done.detail.startswith("nothing left to do")
    assert watched.home.newest(STREAM).state is DriverState.RUNNING
    assert len(watched.home.starts()) == len(watched.names)
