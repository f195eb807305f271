"""What is not started by itself: a start that would lose rows, and a death that would only repeat."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from k2 import watchdog
from k2.airflow import control
from k2.checkpoints.entries import entries
from k2.checkpoints.quarantine import quarantine_of
from k2.registry.observed import Action, Verdict
from k2.registry.wishes import Wish
from k2.state import audit, database, skips, streams, verdicts
from k2.supervision import policy
from k2.supervision.verdicts import HEALTHY
from k2.watchdog import acting

STREAM = "bronze_binance"
Watched = Any


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
    assert watchdog.urgent(watched.runtime) == [], "a look that does not read the checkpoint knows it by the last verdict"
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

    request = control.Request(Wish.ADOPT, STREAM, "they are lost", "ann", "run")
    asked = control.check(watched.runtime, request)
    assert f"**Found now:** {lost}" in asked.body
    watched.kafka.start = 110
    with pytest.raises(control.RequestRefused, match="would lose more by now than whoever approved it was told: Kafka no longer holds 70 records"):
        control.record(watched.runtime, request, approved_by="bob", shown=asked.loss)
    watched.kafka.start = 100
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
    with closing(watchdog.Poll(watched.runtime)) as poll:
        watched.home.wait_until(lambda: poll.tick(0.1) is not None and STREAM in poll._progress, "the poll has read the checkpoint")
        _adopt_after_the_topic_was_made_anew(watched)
        poll.tick()
    with database.connect(watched.runtime, "reader") as connection:
        wanted = streams.wanted(connection, STREAM)
    assert (wanted.known_query_id, wanted.known_batch, wanted.held_for) == (None, None, None), "what the poll has read before is of the old one"
    assert watched.look()[STREAM].verdict is Verdict.STARTING


def _adopt_after_the_topic_was_made_anew(watched: Watched) -> None:
    watched.kafka.end = 5
    watched.kill()
    assert "partition 0 ends at 5, and 40 was reached already" in watched.watch()[STREAM].detail
    before = sorted(p.name for p in watched.runtime.checkpoint(STREAM).rglob("*"))
    watched.adopt()
    assert watched.watch()[STREAM].fence == 2
    (aside,) = entries(quarantine_of(watched.runtime.checkpoints))
    assert sorted(p.name for p in aside.checkpoint.rglob("*")) == before and not watched.runtime.checkpoint(STREAM).exists()


def test_a_checkpoint_that_cannot_be_read_is_told_with_the_death(watched: Watched) -> None:
    """No start, and the page says why."""
    watched.up()
    (watched.runtime.checkpoint(STREAM) / "offsets" / "0").write_text("v9\n")
    watched.kill()
    assert "log version 'v9'" in watched.watch()[STREAM].detail
    (incident,) = watched.incidents()
    assert "its checkpoint cannot be read" in incident["detail"] and "log version 'v9'" in incident["detail"]


def test_a_start_that_cannot_be_made_is_told_though_nobody_died(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart on request: the driver is down, its checkpoint cannot be read. A page says so after a minute, and ends with the stream's return."""
    watched.up()
    offsets = watched.runtime.checkpoint(STREAM) / "offsets" / "0"
    whole = offsets.read_text()
    offsets.write_text("v9\n")
    watched.want("running")
    assert "log version 'v9'" in watched.watch()[STREAM].detail
    assert [i for i in watched.incidents() if i["key"] == f"held:{STREAM}"] == [], "it may only be for a moment"
    monkeypatch.setattr(acting, "NOT_STARTED_FOR", timedelta(0))
    watched.watch()
    watched.look()
    (told,) = [i for i in watched.incidents() if i["key"] == f"held:{STREAM}"]
    assert (told["severity"], told["title"]) == ("page", f"Stream {STREAM} cannot be started") and "What to do: mend what it names" in told["detail"]
    offsets.write_text(whole)
    assert watched.watch()[STREAM].fence == 2
    watched.home.wait_begun(len(watched.names) + 1)
    watched.commit(STREAM, 1)
    assert watched.look()[STREAM].verdict in HEALTHY
    assert [i["resolved_at"] is not None for i in watched.incidents() if i["key"] == f"held:{STREAM}"] == [True]


def test_a_driver_with_a_mistake_in_its_configuration_is_left_down(watched: Watched) -> None:
    """Exit 78 opens an incident and starts nothing until a person asks."""
    watched.up()
    exit_file = watched.runtime.driver_dir(STREAM, 1) / "exit.json"
    watched.home.kill_agent()
    exit_file.write_text(json.dumps({"code": 78, "class": "Config", "message": "no such table"}))
    os.kill(json.loads((exit_file.parent / "record.json").read_text())["pid"], signal.SIGKILL)
    watched.home.start_agent()
    found = watched.look()[STREAM]
    assert (found.verdict, found.action) == (Verdict.DEAD, Action.NONE)
    detail = watched.incidents()[0]["detail"]
    assert "no such table" in detail and "What to do: correct what it names" in detail
    assert watched.watch() == {}
    watched.want("running")
    assert watched.watch()[STREAM].fence == 2


def test_last_words_that_no_database_can_hold_stop_no_restart(watched: Watched) -> None:
    """An exception quotes a record: a NUL or half a surrogate pair is replaced, the death is written and the stream started again."""
    watched.up()
    exit_file = watched.runtime.driver_dir(STREAM, 1) / "exit.json"
    watched.home.kill_agent()
    said = {"code": 70, "class": "query_failed", "message": "bad value 'a\0b\ud800'", "failure": {"fingerprint": "f\0", "batch": 1}}
    exit_file.write_text(json.dumps(said))
    os.kill(json.loads((exit_file.parent / "record.json").read_text())["pid"], signal.SIGKILL)
    watched.home.start_agent()
    found = watched.look()[STREAM]
    assert found.verdict is Verdict.DEAD and "bad value 'a\N{REPLACEMENT CHARACTER}b?'" in found.because
    with database.connect(watched.runtime, "reader") as connection:
        assert verdicts.recorded(connection)[STREAM].because == found.because
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
    watched.up()
    before = watched.pid()
    request = control.Request(Wish.UPGRADE, STREAM, "the decoder was mended", "ann", "run 1")
    watched.home.mode("bad-shadow")
    with pytest.raises(control.RequestRefused, match=f"no running driver touched: .* does not fit its checkpoint, {STREAM}: tried q"):
        control.prove(watched.runtime, request)
    with pytest.raises(control.RequestRefused, match="is not what was tried"):
        control.record(watched.runtime, request)
    assert watched.watch() == {} and watched.pid() == before
    watched.home.mode("")
    (found,) = control.prove(watched.runtime, request)
    control.record(watched.runtime, request, proven=found.made_of)
    done = watched.watch()[STREAM]
    assert (done.action, done.fence) == (Action.REPLACE, 2) and "fence 1 drained" in done.detail and watched.pid() != before
    with database.connect(watched.runtime, "reader") as connection:
        rows = audit.recent(connection, STREAM)
    assert [row["outcome"] for row in rows] == ["recorded", "incompatible"] and "tried q" in rows[1]["after"]["because"]


def test_an_upgrade_of_a_layer_is_for_all_of_it_or_none(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stream has its trial, but one that somebody has stopped; when all have passed all are replaced, and one that fails keeps all as they are."""
    watched.up()
    watched.want("stopped", "bronze_kraken")
    watched.watch()
    request = control.Request(Wish.UPGRADE, "all", "a new version", "ann", "run 1")
    running = [name for name in watched.names if name != "bronze_kraken"]
    watched.home.mode("bad-shadow")
    with pytest.raises(control.RequestRefused, match="not upgraded, and no running driver touched"):
        control.prove(watched.runtime, request)
    with database.connect(watched.runtime, "reader") as connection:
        assert [audit.recent(connection, name)[0]["outcome"] for name in running] == ["incompatible"] * 3
    watched.home.mode("")
    found = control.prove(watched.runtime, request)
    assert sorted(shadow.stream for shadow in found) == sorted(running) and len({shadow.made_of for shadow in found}) == 1
    assert set(control.record(watched.runtime, request, proven=found[0].made_of)) == set(running)
    assert {name: (done.action, done.fence) for name, done in watched.watch().items()} == dict.fromkeys(running, (Action.REPLACE, 2))


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
