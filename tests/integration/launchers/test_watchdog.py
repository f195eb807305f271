"""The watchdog over a real database and a real host agent; the drivers are small scripts, Kafka and tables are told."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from k2 import watchdog
from k2.airflow import control
from k2.launchers import start as protocol
from k2.launchers.client import AgentClient
from k2.processes import ProcessId
from k2.registry.observed import Action, Decision, DriverState, Verdict
from k2.registry.wishes import Wish
from k2.state import audit, database, incidents, skips, streams, watchers
from k2.supervision import judge, policy
from k2.supervision.edges import HEALTHY

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
    assert (incident["key"], incident["severity"], incident["resolved_at"]) == (f"stream:{STREAM}", "page", None)
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
    assert alive["detected_at"] == first.detected_at and alive["last_commit_at"] == dead["first_commit_at"]
    (incident,) = watched.incidents()
    assert incident["resolved_at"] is not None and "fence 2" in incident["resolution"]


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
    assert list(done) == [STREAM] and (done[STREAM].action, done[STREAM].drained) == (Action.STOP, True)
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
    assert done.drained is False and "did not drain, it was killed at the deadline (exit code -9)" in done.detail
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
    assert (done.action, done.fence, done.drained) == (Action.REPLACE, 2, True)
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
        streams.raise_fence(connection, STREAM, seen=1, generation=1, reason="test", last_commit_at=None, detected_at=None)
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
        fence = streams.raise_fence(connection, STREAM, seen=1, generation=1, reason="test", last_commit_at=None, detected_at=None)
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
    assert incident["severity"] == "page" and incident["detail"].startswith("SUSPECT_DRIVER")
    watched.home.wait_until(lambda: watched.look()[STREAM].verdict is Verdict.IDLE, "its successor is well")
    assert watched.incidents()[0]["resolved_at"] is not None
    with database.connect(watched.runtime, "control") as connection:
        assert streams.wanted(connection, STREAM).deaths == 1


def test_a_checkpoint_that_lost_its_identity_is_never_started(watched: Watched) -> None:
    """After a death, by an urgent look or a full one, the stream is held and paged; adopting it goes on from there."""
    watched.up()
    (watched.runtime.checkpoint(STREAM) / "metadata").write_text('{"id":"another"}')
    watched.kill()
    held = watchdog.act(watched.runtime, [found.decision for found in watchdog.urgent(watched.runtime)])
    assert [(done.ok, done.detail.startswith("held: its checkpoint belongs to query another")) for done in held] == [(True, True)]
    found = watched.look()[STREAM]
    assert (found.verdict, found.action) == (Verdict.REWIND, Action.NONE)
    assert any("lost its place" in incident["title"] or "died" in incident["title"] for incident in watched.incidents())
    watched.want("running")
    assert watched.watch() == {}, "a plain start does not override it"
    with database.connect(watched.runtime, "control") as connection:
        streams.forget_checkpoint(connection, STREAM)
    assert watched.watch()[STREAM].fence == 2


def test_a_stream_whose_place_kafka_no_longer_holds_is_never_started(watched: Watched) -> None:
    """Held and paged with the lost range; a plain start does not override it; adopted, its driver may skip that range and the ledger says so."""
    watched.up()
    watched.commit(STREAM, 40)
    watched.look()
    watched.kafka.start, watched.kafka.end = 100, 150
    watched.kill()
    lost = "Kafka no longer holds 60 records of market.crypto.trades.binance.raw that were not read: partition 0 [40, 100)"
    assert watched.watch()[STREAM].detail == f"held: {lost}"
    found = watched.look()[STREAM]
    assert (found.verdict, found.action) == (Verdict.REWIND, Action.NONE) and found.because.startswith(lost)
    assert any(i["severity"] == "page" and lost in i["detail"] for i in watched.incidents())
    watched.want("running")
    assert watched.watch() == {} and len(watched.ledger()) == 1

    watched.adopt()
    assert watched.watch()[STREAM].fence == 2
    launch = watched.ledger()[-1]
    assert (launch["adopted"], launch["accepted_loss"]) == (True, {"0": [40, 100]})
    assert json.loads(watched.runtime.accepted_loss(STREAM, 2).read_text()) == {"0": [40, 100]}
    watched.home.wait_begun(len(watched.names) + 1)
    watched.kill()
    watched.home.wait_until(lambda: STREAM in watched.watch(), "its backoff is over")
    assert watched.ledger()[-1]["accepted_loss"] == {"0": [40, 100]}, "before its first commit the same word still counts"
    watched.home.wait_begun(len(watched.names) + 2)
    watched.commit(STREAM, 130)
    watched.look()
    watched.kafka.start, watched.kafka.end = 140, 150
    watched.kill()
    watched.home.wait_until(lambda: STREAM in watched.watch() or watched.look()[STREAM].verdict is Verdict.REWIND, "it is tried or held")
    assert watched.look()[STREAM].verdict is Verdict.REWIND, "what is lost later needs another word"


def test_a_topic_that_was_made_anew_needs_a_new_checkpoint(watched: Watched) -> None:
    """Its end lies before what was committed: adopted, the checkpoint is moved aside whole, and the stream begins anew."""
    watched.up()
    watched.commit(STREAM, 40)
    watched.look()
    watched.kafka.end = 5
    watched.kill()
    assert "partition 0 ends at 5, and 40 was reached already" in watched.watch()[STREAM].detail
    before = sorted(p.name for p in watched.runtime.checkpoint(STREAM).rglob("*"))
    watched.adopt()
    assert watched.watch()[STREAM].fence == 2
    aside = watched.runtime.checkpoints.with_name("checkpoints.aside") / f"{watched.runtime.checkpoint(STREAM).name}-before-2"
    assert sorted(p.name for p in aside.rglob("*")) == before and not watched.runtime.checkpoint(STREAM).exists()
    with database.connect(watched.runtime, "reader") as connection:
        wanted = streams.wanted(connection, STREAM)
    assert (wanted.known_query_id, wanted.known_batch, wanted.held_for) == (None, None, None)
    assert watched.look()[STREAM].verdict is Verdict.STARTING


def test_a_silent_broker_holds_a_stream_that_reads_from_it(watched: Watched) -> None:
    """Whether its place is still there cannot be known: no start and no hold, and the next look asks again. A stream of a table starts."""
    watched.up()
    watched.kafka.start = None
    silver = "silver_kraken"
    watched.kill()
    watched.kill(silver)
    done = watched.watch()
    assert done[STREAM].ok and done[STREAM].detail.startswith("held: Kafka was asked where") and done[STREAM].fence is None
    assert done[silver].fence == 2
    watched.kafka.start = 0
    assert watched.watch()[STREAM].fence == 2


def test_a_driver_frozen_inside_its_commit_is_ended_first(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the old driver's session holds the stream's row, it is killed, which frees the row, and the start goes on."""
    watched.up()
    monkeypatch.setattr(protocol, "LOCK_WAIT_MS", 200)
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


def test_a_silent_agent_holds_everything(watched: Watched) -> None:
    """Without the agent every stream is unknown, an action fails and is told, and nothing is recorded as dead."""
    watched.up()
    decisions = [Decision(name, Verdict.DEAD, Action.START, "test", fence=1, generation=1) for name in watched.names]
    watched.home.kill_agent()
    assert {d.verdict for d in watched.look().values()} == {Verdict.UNKNOWN}
    assert watched.watch() == {} and watched.incidents() == []
    done = watchdog.act(watched.runtime, decisions[:1])
    assert not done[0].ok and "AgentUnavailable" in done[0].detail
    with database.connect(watched.runtime, "reader") as connection:
        assert "AgentUnavailable" in watchers.watchers(connection)[0]["detail"]
    watched.home.start_agent()
    assert watched.look()["bronze_kraken"].verdict is Verdict.IDLE


def test_a_silent_database_holds_everything(watched: Watched) -> None:
    """Without the database every stream is unknown, the look ends all the same, and an action fails and is told."""
    watched.up()
    away = type(watched)(watched.home, watched.runtime.model_copy(update={"postgres_port": 1}))
    assert {d.verdict for d in away.look().values()} == {Verdict.UNKNOWN}
    (done,) = watchdog.act(away.runtime, [Decision(STREAM, Verdict.DEAD, Action.START, "test", fence=1, generation=1)])
    assert not done.ok and "StateUnavailable" in done.detail


def test_an_unreadable_stream_does_not_hide_the_others(watched: Watched) -> None:
    """A damaged checkpoint makes its own stream unknown; the others are judged."""
    watched.up()
    (watched.runtime.checkpoint(STREAM) / "offsets" / "0").write_text("v9\n")
    found = watched.look()
    assert found[STREAM].verdict is Verdict.UNKNOWN and "log version 'v9'" in found[STREAM].because
    assert found["bronze_kraken"].verdict is Verdict.IDLE


def test_a_driver_with_a_mistake_in_its_configuration_is_left_down(watched: Watched) -> None:
    """Exit 78 opens an incident and starts nothing until a person asks."""
    watched.up()
    exit_file = watched.runtime.driver_dir(STREAM, 1) / "exit.json"
    watched.home.kill_agent()
    exit_file.write_text(json.dumps({"code": 78, "class": "Config", "message": "no such table"}))
    os.kill(json.loads((exit_file.parent / "record.json").read_text())["pid"], signal.SIGKILL)
    watched.home.start_agent()
    found = watched.look()[STREAM]
    assert (found.verdict, found.action, found.not_before) == (Verdict.DEAD, Action.WAIT, None)
    assert "no such table" in watched.incidents()[0]["detail"] and watched.watch() == {}
    watched.want("running")
    assert watched.watch()[STREAM].fence == 2


def test_a_batch_that_fails_twice_in_the_same_way_is_held_until_a_person_skips_its_records(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more attempt, then POISONED, paged with the records; skip-poison notes them with who and why, and starts the stream."""
    monkeypatch.setattr(policy, "backoff", lambda *_: timedelta(0))
    silver, bronze = "silver_binance", "bronze_kraken"
    watched.up()
    watched.home.mode(f"poison-{silver} poison-{bronze}")
    for stream in (silver, bronze):
        watched.kill(stream)
    for attempt in (2, 3):
        assert {name: done.fence for name, done in watched.watch().items()} == {silver: attempt, bronze: attempt}
        watched.home.wait_until(lambda: watched.home.has_exited(silver) and watched.home.has_exited(bronze), "both died")
    found = watched.look()
    assert {(found[name].verdict, found[name].action) for name in (silver, bronze)} == {(Verdict.POISONED, Action.NONE)}
    assert watched.watch() == {}
    row = watched.ledger(silver)[-1]
    assert (row["failure_class"], row["fingerprint"], row["failed_batch"], row["failed_records"]) == (
        "query",
        "ArithmeticException-1",
        1,
        {"trades": {"2": [[40, 40]]}},
    )
    (page,) = [incident for incident in watched.incidents() if incident["key"] == f"held:{silver}"]
    assert page["severity"] == "page" and "trades partition 2 offset 40" in page["detail"]
    assert all(incident["resolved_at"] for incident in watched.incidents() if incident["key"] == f"stream:{silver}")
    wish = {"who": "ann", "reason": "a record that nobody needs"}
    for stream, words in ((bronze, "is a Bronze stream"), ("silver_kraken", "only a stream that is held as POISONED needs that")):
        with pytest.raises(control.RequestRefused, match=words):
            control.check(watched.runtime, control.Request(Wish.SKIP_POISON, stream, run_id="run", **wish))
    request = control.Request(Wish.SKIP_POISON, silver, run_id="run", **wish)
    asked = control.check(watched.runtime, request)
    assert asked.risky and "offset 40" in asked.body
    with pytest.raises(control.RequestRefused, match="needs an approval, and nobody gave one"):
        control.record(watched.runtime, request)
    control.record(watched.runtime, request, approved_by="bob")
    with database.connect(watched.runtime, "reader") as connection:
        (skip,) = skips.of(connection, silver)
        (row,) = connection.execute("SELECT who, action, reason, approved_by FROM k2.audit").fetchall()
    assert (skip.batch, skip.records) == (1, {"trades": {"2": [[40, 40]]}})
    assert row == {"action": "skip-poison", "approved_by": "bob", **wish}
    watched.home.mode("")
    assert {name: done.fence for name, done in watched.watch().items()} == {silver: 4}
    watched.commit(silver, 1)
    watched.home.wait_until(lambda: watched.look()[silver].verdict is Verdict.IDLE, "it goes on")
    assert [i["key"] for i in watched.incidents() if i["resolved_at"] is None] == [f"held:{bronze}"]


def test_an_upgrade_is_recorded_only_when_its_shadow_has_passed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shadow that fails leaves the driver as it is, with the reason in the audit log; one that passes lets the next fence take over, once."""
    monkeypatch.setenv("K2_PLATFORM", watched.home.environment["K2_PLATFORM"])
    watched.up()
    before = watched.pid()
    request = control.Request(Wish.UPGRADE, STREAM, "the decoder was mended", "ann", "run 1")
    watched.home.mode("bad-shadow")
    with pytest.raises(control.RequestRefused, match="its running driver was not touched: .* does not fit its checkpoint: tried q"):
        control.prove(watched.runtime, request)
    with pytest.raises(control.RequestRefused, match="is not what was tried"):
        control.record(watched.runtime, request)
    assert watched.watch() == {} and watched.pid() == before
    watched.home.mode("")
    found = control.prove(watched.runtime, request)
    control.record(watched.runtime, request, proven=found.made_of)
    done = watched.watch()[STREAM]
    assert (done.action, done.fence, done.drained) == (Action.REPLACE, 2, True) and watched.pid() != before
    with database.connect(watched.runtime, "reader") as connection:
        rows = audit.recent(connection, STREAM)
    assert [row["outcome"] for row in rows] == ["recorded", "incompatible"] and "tried q" in rows[1]["after"]["because"]


def test_a_crash_loop_is_held(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill and four deaths without a commit in between: held and paged, a start on request empties the bucket, and what a dependency did does not fill it."""
    monkeypatch.setattr(policy, "backoff", lambda *_: timedelta(0))
    watched.up()
    watched.home.mode("exit")
    watched.kill()
    for attempt in range(2, 6):  # the kill weighs half
        assert watched.watch()[STREAM].fence == attempt
        watched.home.wait_until(lambda: watched.home.has_exited(STREAM), "it died")
    found = watched.look()[STREAM]
    assert (found.verdict, found.action) == (Verdict.CRASH_LOOP, Action.WAIT)
    assert found.not_before is not None and found.not_before > datetime.now(UTC) + timedelta(minutes=5)
    assert watched.watch() == {}
    assert [i["key"] for i in watched.incidents() if i["resolved_at"] is None] == [f"held:{STREAM}"]
    watched.want("running")
    assert watched.watch()[STREAM].fence == 6
    watched.home.wait_until(lambda: watched.home.has_exited(STREAM), "it died")
    assert watched.watch()[STREAM].fence == 7
    with database.connect(watched.runtime, "admin") as admin:
        admin.execute("UPDATE k2.launches SET failure_class = 'dependency'")
    with database.connect(watched.runtime, "control") as connection:
        assert streams.wanted(connection, STREAM).deaths == 0


def test_a_broker_that_is_away_is_one_incident_and_holds_its_streams(watched: Watched) -> None:
    """What runs is left alone, what died of it is started as soon as it answers, nothing counts, and people are told once."""
    watched.up()
    watched.kafka.away = True
    found = watched.look()
    assert {name: (d.verdict, d.action) for name, d in found.items() if name.startswith("bronze")} == {
        "bronze_binance": (Verdict.WAITING_DEPENDENCY, Action.NONE),
        "bronze_kraken": (Verdict.WAITING_DEPENDENCY, Action.NONE),
    }
    assert found["silver_binance"].verdict is Verdict.IDLE
    watched.kafka.away = False
    watched.home.mode("lost-kafka")
    watched.kill()
    assert watched.watch()[STREAM].fence == 2, "a kill says nothing about the broker"
    watched.home.wait_until(lambda: watched.home.has_exited(), "it dies of the broker")
    watched.kafka.away = True
    assert watchdog.urgent(watched.runtime) == []
    held = watched.look()[STREAM]
    assert (held.verdict, held.action, held.dependency) == (Verdict.WAITING_DEPENDENCY, Action.WAIT, "kafka")
    assert watched.watch() == {}
    still_open = [i for i in watched.incidents() if i["resolved_at"] is None]
    assert [(i["key"], i["severity"]) for i in still_open] == [("dependency:kafka", "page"), (f"stream:{STREAM}", "page")], "the kill is an incident of its own"
    assert "bronze_binance, bronze_kraken" in still_open[0]["detail"]
    row = watched.ledger()[-1]
    assert (row["end_reason"], row["failure_class"], row["failed_dependency"]) == ("died", "dependency", "kafka")
    watched.kafka.away = False
    watched.home.mode("")
    assert watched.watch()[STREAM].fence == 3
    watched.commit(STREAM, 1)
    assert watched.look()["bronze_kraken"].verdict in HEALTHY
    assert [i["resolution"] for i in watched.incidents() if i["key"] == "dependency:kafka"] == ["it answers again"]
    with database.connect(watched.runtime, "control") as connection:
        wanted = streams.wanted(connection, STREAM)
    assert (wanted.deaths, wanted.answered_at is not None) == (1, True), "only the kill counts"


def test_when_all_die_bronze_comes_first_two_at_a_time_and_each_silver_shares_its_incident(watched: Watched) -> None:
    """One cause is told once per Bronze; Silver is started after its Bronze, whose commits make room."""
    watched.up()
    watched.kafka.end = 5
    for stream in reversed(watched.names):
        watched.kill(stream)
    assert set(watched.watch()) == {"bronze_binance", "bronze_kraken"}
    assert watched.watch() == {}, "two are on their way back"
    assert sorted(i["key"] for i in watched.incidents()) == ["stream:bronze_binance", "stream:bronze_kraken"]
    watched.commit("bronze_kraken", 1)
    assert list(watched.watch()) in (["silver_kraken"], ["silver_binance"])
    watched.commit("bronze_binance", 1)
    assert len(watched.watch()) == 1
    assert {row["fence"] for name in watched.names for row in watched.ledger(name)} == {1, 2}
    for stream in ("silver_binance", "silver_kraken"):
        watched.commit(stream, 1)
    watched.kafka.end = 1
    watched.home.wait_until(lambda: {d.verdict for d in watched.look().values()} == {Verdict.IDLE}, "all are well")
    assert all(i["resolved_at"] for i in watched.incidents())


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
