"""A source of readings that does not answer: it holds what depends on it, and is one incident."""

from __future__ import annotations

from typing import Any

import pytest

from k2 import watchdog
from k2.registry.observed import Action, Decision, Verdict
from k2.state import database, incidents, streams, watchers
from k2.supervision.verdicts import HEALTHY

STREAM = "bronze_binance"
Watched = Any


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
        assert "AgentUnavailable" in watchers.ages(connection)["watchdog"][1]
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.verdicts SET since = since - interval '3 minutes'")
    watched.look()
    (blind,) = watched.incidents()
    assert (blind["key"], blind["severity"]) == ("watchers:judgement", "page") and "AgentUnavailable" in blind["detail"], "one for all streams"
    watched.home.start_agent()
    assert watched.look()["bronze_kraken"].verdict is Verdict.IDLE
    assert watched.incidents()[0]["resolved_at"] is not None


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
    assert [(i["key"], i["severity"]) for i in still_open] == [("dependency:kafka", "page"), (f"stream:{STREAM}", "ticket")], (
        "the kill is an incident of its own"
    )
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
    assert (wanted.deaths, list(wanted.answered)) == (1, ["kafka"]), "only the kill counts"


def test_a_stream_that_is_not_declared_any_more_keeps_no_incident_open(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its own nor that of what it waited for."""
    watched.up()
    watched.kafka.away = True
    watched.look()
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.verdicts SET dependency = NULL WHERE stream <> %s", (STREAM,))
        incidents.open_incident(connection, f"held:{STREAM}", "page", "t", "d")
    watched.kafka.away = False
    platform = watched.runtime.platform
    fewer = platform.model_copy(update={"streams": {name: spec for name, spec in platform.streams.items() if name != STREAM}})
    monkeypatch.setattr(type(watched.runtime), "platform", property(lambda _: fewer))
    watchdog.look(watched.runtime)
    assert [i["key"] for i in watched.incidents() if i["resolved_at"] is None] == []


def test_when_all_die_bronze_comes_first_two_at_a_time_and_one_incident_tells_of_all(watched: Watched) -> None:
    """One cause is told once, until all are back; Silver is started after its Bronze, whose commits make room."""
    watched.up()
    watched.kafka.end = 5
    for stream in reversed(watched.names):
        watched.kill(stream)
    assert set(watched.watch()) == {"bronze_binance", "bronze_kraken"}
    assert watched.watch() == {}, "two are on their way back"
    (told,) = watched.incidents()
    assert told["key"] == "stream:bronze_binance" and told["evidence"].endswith(": bronze_kraken, silver_binance, silver_kraken")
    watched.commit("bronze_kraken", 1)
    assert list(watched.watch()) in (["silver_kraken"], ["silver_binance"])
    watched.commit("bronze_binance", 1)
    assert len(watched.watch()) == 1
    assert {row["fence"] for name in watched.names for row in watched.ledger(name)} == {1, 2}
    assert watched.incidents()[0]["resolved_at"] is None, "its own stream is back, others are not"
    for stream in ("silver_binance", "silver_kraken"):
        watched.commit(stream, 1)
    watched.kafka.end = 1
    watched.home.wait_until(lambda: {d.verdict for d in watched.look().values()} == {Verdict.IDLE}, "all are well")
    (told,) = watched.incidents()
    assert told["resolved_at"] is not None
