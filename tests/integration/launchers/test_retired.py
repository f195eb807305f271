"""Whole checkpoints that are retired and brought back: refused, interrupted, undone, and honoured by every start."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from k2.airflow import control
from k2.checkpoints import backup, quarantine, survey
from k2.checkpoints.doctor import Health
from k2.checkpoints.entries import CHECKPOINT, Entry, Refused, describe, entries, new_entry, recover
from k2.checkpoints.manifest import LIST, Kind, Why
from k2.launchers import retention, retiring
from k2.launchers.retiring import Subject
from k2.registry.history import Chain, Commit
from k2.registry.observed import Action, Verdict
from k2.registry.wishes import Wish
from k2.state import audit, database, retired, streams

from .killing import killed_at

STREAM, FOLDER = "bronze_binance", "bronze-binance"
SUBJECT = Subject(FOLDER, STREAM)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MOST_STEPS = 100

Watched = Any


def stopped(watched: Watched) -> Path:
    """All streams run, Bronze has committed two batches and is stopped. Returns its checkpoint."""
    watched.up()
    watched.commit(STREAM, 1)
    watched.look()
    watched.want("stopped")
    watched.watch()
    assert watched.look()[STREAM].verdict is Verdict.STOPPED
    return Path(watched.runtime.checkpoint(STREAM))


def request(wish: Wish, checkpoint: str = "", stream: str = STREAM) -> control.Request:
    return control.Request(wish, stream, "nobody reads it any more", "ann", "run", checkpoint)


def do(watched: Watched, wish: Wish, checkpoint: str = "", stream: str = STREAM) -> str:
    """As a person asks, and somebody approves. Returns the question."""
    asked = control.check(watched.runtime, request(wish, checkpoint, stream))
    assert asked.risky
    control.record(watched.runtime, request(wish, checkpoint, stream), approved_by="bob", shown=asked.loss)
    return asked.body


def refused(watched: Watched, wish: Wish, words: str, checkpoint: str = "", stream: str = STREAM) -> None:
    before = {str(path): path.read_bytes() for path in watched.runtime.checkpoints.rglob("*") if path.is_file()}
    with pytest.raises(control.RequestRefused, match=words):
        control.check(watched.runtime, request(wish, checkpoint, stream))
    assert {str(path): path.read_bytes() for path in watched.runtime.checkpoints.rglob("*") if path.is_file()} == before
    assert tombstone(watched) is None


def tombstone(watched: Watched, folder: str = FOLDER) -> retired.Tombstone | None:
    with database.connect(watched.runtime, "reader") as connection:
        return retired.of(connection, folder)


def wanted(watched: Watched) -> Any:
    with database.connect(watched.runtime, "reader") as connection:
        return streams.wanted(connection, STREAM)


def lying(watched: Watched) -> list[Entry]:
    return [e for e in entries(quarantine.quarantine_of(watched.runtime.checkpoints)) if e.checkpoint.is_dir()]


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_is_retired_and_comes_back(watched: Watched) -> None:
    """Whole, with its times; in between nothing starts in its place, whoever asks, and afterwards its stream goes on from it."""
    checkpoint = stopped(watched)
    before = files(checkpoint)
    body = do(watched, Wish.RETIRE)
    assert f"**ann** asks for **retire** of **{FOLDER}, the checkpoint of {STREAM}**: nobody reads it any more" in body
    assert "of query q, committed up to batch 1" in body and "can go back for 30 days" in body and f"{STREAM} cannot be started" in body
    (entry,) = lying(watched)
    assert files(entry.checkpoint) == before and not checkpoint.exists() and entry.manifest is not None
    topic = watched.runtime.platform.exchanges[watched.runtime.platform.streams[STREAM].exchange].topic
    facts = {"stream": STREAM, "query": "q", "committed": {topic: {"0": 1}}, "reads": topic, "writes": ["bronze_binance_trades"]}
    assert (entry.manifest.kind, entry.manifest.who, entry.manifest.about) == (Kind.RETIRED, "ann", facts)
    stone = tombstone(watched)
    assert stone is not None and (stone.who, stone.reason, stone.entry) == ("ann", "nobody reads it any more", entry.folder.name)
    with database.connect(watched.runtime, "reader") as connection:
        row = audit.recent(connection, STREAM)[0]
    assert (row["action"], row["outcome"], row["approved_by"], row["request"]) == ("retire", "done", "bob", "run")
    assert entry.folder.name in row["after"]["because"]
    (examined,) = survey.examine_all(watched.runtime, datetime.now(UTC), [FOLDER])
    assert (examined.absence, examined.retired) == ("retired", str(stone)), "which is no damage"

    for wish in (Wish.START, Wish.ADOPT):
        with pytest.raises(control.RequestRefused, match=f"'{wish}' of {STREAM}: its checkpoint {FOLDER} is retired, since .* by ann: .* use action 'restore'"):
            control.check(watched.runtime, request(wish))
    assert STREAM not in control.check(watched.runtime, request(Wish.RESTART, stream="bronze")).streams
    with pytest.raises(control.RequestRefused, match=f"{FOLDER} is in the quarantine already, as {entry.folder.name}: use action 'restore'"):
        control.check(watched.runtime, request(Wish.RETIRE))
    watched.want("running")
    assert watched.watch() == {} and watched.look()[STREAM].verdict is Verdict.REWIND
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.streams SET known_query_id = NULL, known_batch = NULL WHERE stream = %s", (STREAM,))
    assert "held: its checkpoint bronze-binance is retired" in watched.watch()[STREAM].detail and not checkpoint.exists(), "not even anew"
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.streams SET known_query_id = 'q', known_batch = 1 WHERE stream = %s", (STREAM,))
    with pytest.raises(control.RequestRefused, match=f"{STREAM} is wanted running: use action 'stop' first"):
        control.check(watched.runtime, request(Wish.RESTORE))
    watched.want("stopped")
    watched.watch()

    body = do(watched, Wish.RESTORE)
    assert entry.folder.name in body and f"It is the one that {STREAM} was last seen with" in body
    assert files(checkpoint) == before and lying(watched) == [] and tombstone(watched) is None
    assert wanted(watched).known_query_id == "q"
    aside = checkpoint.rename(checkpoint.with_name("elsewhere"))
    (examined,) = survey.examine_all(watched.runtime, datetime.now(UTC), [FOLDER])
    assert (examined.absence, examined.health) == ("gone", Health.DAMAGED) and "it was that of q" in examined.findings[0].evidence
    aside.rename(checkpoint)
    watched.want("running")
    done = watched.watch()[STREAM]
    assert (done.action, done.fence) == (Action.START, 2)


def test_a_tombstone_goes_with_what_was_purged(watched: Watched) -> None:
    """With that alone; the stream is still held without its checkpoint."""
    stopped(watched)
    do(watched, Wish.RETIRE)
    (entry,) = lying(watched)
    shutil.rmtree(entry.folder)
    assert retiring.forget_purged(watched.runtime, ["another"]) == [] and tombstone(watched) is not None, "a disk that is away is no purge"
    assert retiring.forget_purged(watched.runtime, ["another", entry.folder.name]) == [FOLDER] and tombstone(watched) is None
    watched.want("running")
    assert watched.watch() == {} and watched.look()[STREAM].verdict is Verdict.REWIND


def test_a_retiring_that_was_frozen_moves_nothing(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its tombstone and the move the checkpoint was restored: it stays."""
    checkpoint = stopped(watched)
    alone, entered = retiring._alone, []

    def thawed(*args: Any) -> Any:
        entered.append(args)
        if len(entered) == 2:
            with database.connect(watched.runtime, "control") as connection:
                retired.forget(connection, FOLDER)
        return alone(*args)

    monkeypatch.setattr(retiring, "_alone", thawed)
    with pytest.raises(Refused, match=f"somebody else has retired or restored {FOLDER} meanwhile: ask again"):
        retiring.retire(watched.runtime, SUBJECT, who="ann", reason="nobody reads it any more")
    assert checkpoint.exists() and lying(watched) == []


def test_what_may_be_needed_is_not_retired(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs, or nobody has seen how it ended, or it is an older copy, damaged, or not the one that it was; no place, or several streams."""
    checkpoint = stopped(watched)
    refused(watched, Wish.RETIRE, "stream: 'bronze' names several: choose one", stream="bronze")
    refused(watched, Wish.RETIRE, "checkpoint: '../x' is no name: choose a folder", "../x")
    refused(watched, Wish.RETIRE, "checkpoint: 'nothing' is not there: choose a folder", "nothing")
    refused(watched, Wish.RETIRE, "checkpoint: 'silver-binance' is of silver_binance, and the stream is 'bronze_binance'", "silver-binance")
    refused(watched, Wish.RETIRE, "silver_binance is wanted running: use action 'stop' first", stream="silver_binance")
    with pytest.raises(control.RequestRefused, match="checkpoint: 'x' with action 'stop': only retire and restore take one: leave it empty"):
        control.check(watched.runtime, request(Wish.STOP, "x"))
    later = Commit(1, NOW, "append", query="q", batch=2)
    with monkeypatch.context() as patch:
        patch.setattr(retention, "read_chain", lambda location: Chain([later], whole=True))
        with database.connect(watched.runtime, "control") as connection:
            connection.execute("INSERT INTO iceberg_tables VALUES ('k2', 'market_data', 'bronze_binance_trades', 'x', NULL, 'TABLE') ON CONFLICT DO NOTHING")
        refused(watched, Wish.RETIRE, "bronze_binance_trades has batch 2 of query q, and bronze-binance ends with batch 1: it is an older copy")
    (checkpoint / "offsets" / "0").rename(checkpoint.parent / "0")
    refused(watched, Wish.RETIRE, "bronze-binance is damaged: offsets/1 is there but offsets/0 is not")
    (checkpoint.parent / "0").rename(checkpoint / "offsets" / "0")
    (checkpoint / "offsets" / "1").write_text("v9\n")
    refused(watched, Wish.RETIRE, "log version 'v9'.*what is damaged is not retired: use action 'rebuild'")
    watched.commit(STREAM, 1)
    (checkpoint / "metadata").write_text('{"id":"another"}')
    refused(watched, Wish.RETIRE, "its checkpoint belongs to query another, and it was that of q: put the right one back, or use action 'rebuild'")
    (checkpoint / "metadata").write_text('{"id":"q"}')
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.launches SET ended_at = NULL WHERE stream = %s", (STREAM,))
    refused(watched, Wish.RETIRE, "nobody has seen yet how the driver of bronze_binance with fence 1 ended")
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.launches SET ended_at = now() WHERE stream = %s", (STREAM,))
    watched.home.client.launch(STREAM, 9)
    refused(watched, Wish.RETIRE, "the driver of bronze_binance with fence 9 still runs: ask again when it has ended")
    watched.home.kill_agent()
    refused(watched, Wish.RETIRE, "whether a driver of bronze_binance runs cannot be known")


def test_what_changed_after_the_approval_is_not_done(watched: Watched) -> None:
    """Another batch is there, or somebody wants it running: it is asked again, and nothing is moved. Without an approval neither."""
    checkpoint = stopped(watched)
    asked = control.check(watched.runtime, request(Wish.RETIRE))
    with pytest.raises(control.RequestRefused, match="needs an approval, and nobody gave one"):
        control.record(watched.runtime, request(Wish.RETIRE), shown=asked.loss)
    watched.commit(STREAM, 2)
    with pytest.raises(control.RequestRefused, match="Nothing was done. By now it would be: .* up to batch 2.*: ask again"):
        control.record(watched.runtime, request(Wish.RETIRE), approved_by="bob", shown=asked.loss)
    watched.want("running")
    with pytest.raises(control.RequestRefused, match="is wanted running"):
        control.record(watched.runtime, request(Wish.RETIRE), approved_by="bob", shown=asked.loss)
    assert checkpoint.exists() and tombstone(watched) is None


@pytest.mark.parametrize("then", [Wish.RETIRE, Wish.RESTORE])
def test_a_retiring_killed_at_any_step_is_completed_or_undone(watched: Watched, then: Wish) -> None:
    """The checkpoint is whole at one place, nothing starts once the tombstone is written, and both ways out end well."""
    checkpoint = stopped(watched)
    whole = files(checkpoint)
    for at in range(1, MOST_STEPS):
        killed = killed_at(at, lambda: retiring.retire(watched.runtime, SUBJECT, who="ann", reason="nobody reads it any more"))
        places = [place for place in (checkpoint, *(entry.checkpoint for entry in lying(watched))) if place.exists()]
        assert [files(place) for place in places] == [whole], at
        begun = tombstone(watched)
        if then is Wish.RETIRE:
            if begun is None or begun.entry is None:
                assert do(watched, Wish.RETIRE).count("the retiring was interrupted") == (not checkpoint.exists() and places[0] != checkpoint)
            (entry,) = lying(watched)
            now = tombstone(watched)
            assert now is not None and now.entry == entry.folder.name and not checkpoint.exists(), at
            do(watched, Wish.RESTORE)
        elif begun is not None:
            do(watched, Wish.RESTORE)
        assert files(checkpoint) == whole and lying(watched) == [] and tombstone(watched) is None, at
        assert (wanted(watched).known_query_id, wanted(watched).adopted_generation) == ("q", None)
        recover(quarantine.quarantine_of(watched.runtime.checkpoints))
        if not killed:
            break
    assert 15 <= at < MOST_STEPS - 1, "the steps are no longer seen"


def test_a_restoring_killed_at_any_step_is_completed(watched: Watched) -> None:
    """Asked again, it is back, whole; a tombstone whose checkpoint is in its place goes."""
    checkpoint = stopped(watched)
    whole = files(checkpoint)
    for at in range(1, MOST_STEPS):
        retiring.retire(watched.runtime, SUBJECT, who="ann", reason="nobody reads it any more")
        (entry,) = lying(watched)
        killed = killed_at(at, lambda: retiring.restore(watched.runtime, SUBJECT, entry, who="ann", reason="it is read again"))  # noqa: B023
        if tombstone(watched) is not None:
            do(watched, Wish.RESTORE)
        assert files(checkpoint) == whole and lying(watched) == [] and tombstone(watched) is None, at
        recover(quarantine.quarantine_of(watched.runtime.checkpoints))
        if not killed:
            break
    assert 8 <= at < MOST_STEPS - 1, "the steps are no longer seen"


def test_an_exchange_killed_at_any_step_is_completed_or_held(watched: Watched, tmp_path: Path) -> None:
    """Both checkpoints are whole somewhere; asked again the older one is back, and nobody starts from it whom nobody has told."""
    checkpoint = stopped(watched)
    shutil.copytree(checkpoint, tmp_path / "older")
    older = files(tmp_path / "older")
    watched.commit(STREAM, 2)
    shutil.copytree(checkpoint, tmp_path / "newer")
    newer = files(tmp_path / "newer")
    held = 0
    for at in range(1, MOST_STEPS):
        place = quarantine.quarantine_of(watched.runtime.checkpoints)
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(checkpoint)
        shutil.copytree(tmp_path / "older", checkpoint)
        entry = quarantine.put_copy(checkpoint, watched.runtime.checkpoints, Why(kind=Kind.ADOPTED, who="watchdog", why="adopted", at=NOW))
        shutil.rmtree(checkpoint)
        shutil.copytree(tmp_path / "newer", checkpoint)
        with database.connect(watched.runtime, "control") as connection:
            connection.execute("UPDATE k2.streams SET known_query_id = 'q', known_batch = 2 WHERE stream = %s", (STREAM,))
        killed = killed_at(at, lambda: retiring.restore(watched.runtime, SUBJECT, entry, who="ann", reason="it was better"))  # noqa: B023
        there = [files(folder) for folder in (checkpoint, *(e.checkpoint for e in lying(watched))) if folder.exists()]
        assert older in there and newer in there, at
        if entry.checkpoint.exists():
            do(watched, Wish.RESTORE, entry.folder.name)
        assert files(checkpoint) == older and [files(e.checkpoint) for e in lying(watched)] == [newer], at
        if wanted(watched).known_query_id is not None:
            watched.want("running")
            assert watched.watch() == {} and watched.look()[STREAM].verdict is Verdict.REWIND, at
            watched.want("stopped")
            watched.watch()
            held += 1
        if not killed:
            break
    assert 10 <= at < MOST_STEPS - 1 and held, "the steps are no longer seen"


def test_another_checkpoint_than_the_last_is_told_and_adopted(watched: Watched) -> None:
    """An older entry by its name: whoever approves is told, what lies in the place is kept, and the next start goes on from it."""
    checkpoint = stopped(watched)
    older = quarantine.put_copy(checkpoint, watched.runtime.checkpoints, Why(kind=Kind.ADOPTED, who="watchdog", why="adopted", at=NOW))
    watched.commit(STREAM, 2)
    with database.connect(watched.runtime, "control") as connection:
        streams.know(connection, {STREAM: ("q", 2, 1)})
    newer = files(checkpoint)
    body = do(watched, Wish.RESTORE, older.folder.name)
    assert f"**It is not the one that {STREAM} was last seen with**, which was of query q up to batch 2" in body and "in its tables twice" in body
    (entry,) = lying(watched)
    assert files(entry.checkpoint) == newer and entry.manifest is not None and entry.manifest.kind is Kind.REPLACED
    assert not (checkpoint / "offsets" / "2").exists()
    assert (wanted(watched).known_query_id, wanted(watched).adopted_generation) == (None, wanted(watched).generation + 1)
    watched.want("running")
    assert watched.watch()[STREAM].fence == 2 and watched.ledger()[-1]["adopted"]


def test_a_restore_that_is_refused_leaves_what_is_there(watched: Watched) -> None:
    """What lies in the quarantine is not what it was; what lies there already, nothing of the stream, or of another one."""
    checkpoint = stopped(watched)
    refused(watched, Wish.RESTORE, "the quarantine has no checkpoint of bronze-binance: choose a backup by its name, or use action 'rebuild'")
    entry = quarantine.put_copy(checkpoint, watched.runtime.checkpoints, Why(kind=Kind.ADOPTED, who="watchdog", why="adopted", at=NOW))
    refused(watched, Wish.RESTORE, "is of bronze_binance, and the stream is 'silver_binance'", entry.folder.name, "silver_binance")
    asked = control.check(watched.runtime, request(Wish.RESTORE, entry.folder.name))
    (entry.checkpoint / "metadata").write_text('{"id":"Q"}')
    before = files(checkpoint)
    with pytest.raises(control.RequestRefused, match="It was not done: .* is not what it was: metadata"):
        control.record(watched.runtime, request(Wish.RESTORE, entry.folder.name), approved_by="bob", shown=asked.loss)
    assert files(checkpoint) == before
    (entry.folder / LIST).unlink()
    with pytest.raises(control.RequestRefused, match="files.jsonl"):
        control.record(watched.runtime, request(Wish.RESTORE, entry.folder.name), approved_by="bob", shown=asked.loss)


def test_leftovers_and_backups_go_back_by_their_names(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leftovers into the checkpoint, which stays; a backup in its place, if the table stands where it does."""
    checkpoint = stopped(watched)
    made = backup.back_up(checkpoint, watched.runtime.checkpoints, who="ann", why="monthly", at=NOW, keep=3)
    at = {"batch": 1}
    monkeypatch.setattr(retention, "read_chain", lambda location: Chain([Commit(1, NOW, "append", query="q", batch=at["batch"])], whole=True))
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("INSERT INTO iceberg_tables VALUES ('k2', 'market_data', 'bronze_binance_trades', 'x', NULL, 'TABLE') ON CONFLICT DO NOTHING")
    before = files(checkpoint)
    at["batch"] = 5
    asked = control.check(watched.runtime, request(Wish.RESTORE, made.folder.name))
    with pytest.raises(control.RequestRefused, match="the table has batch 5 of query q, and the backup ends with 1"):
        control.record(watched.runtime, request(Wish.RESTORE, made.folder.name), approved_by="bob", shown=asked.loss)
    assert files(checkpoint) == before and lying(watched) == [], "what lies there is put back"
    at["batch"] = 1
    shutil.rmtree(checkpoint)
    assert "(backup: monthly)" in do(watched, Wish.RESTORE, made.folder.name)
    assert {name: content for name, (content, _) in files(checkpoint).items()} == {name: content for name, (content, _) in files(made.checkpoint).items()}

    leftover = checkpoint / "offsets" / ".7.0f1e2d3c-0000-4000-8000-000000000000.tmp"
    leftover.write_text("half")
    why = Why(kind=Kind.LEFTOVERS, who="checkpoints_prune", why="left by crashed writes", at=NOW)
    with new_entry(quarantine.quarantine_of(watched.runtime.checkpoints), checkpoint, why) as folder:
        describe(checkpoint, folder, checkpoint.name, why, [f"offsets/{leftover.name}"])
        (folder / CHECKPOINT / "offsets").mkdir(parents=True)
        leftover.rename(folder / CHECKPOINT / "offsets" / leftover.name)
    refused(watched, Wish.RESTORE, "the quarantine has no checkpoint of bronze-binance")
    assert f"its 1 files go back into {FOLDER}" in do(watched, Wish.RESTORE, folder.name)
    assert leftover.read_text() == "half" and lying(watched) == []


def test_a_folder_that_no_stream_claims_is_named(watched: Watched) -> None:
    """Retired when nothing speaks against it, and brought back by its name or that of its entry; the chosen stream is not touched."""
    checkpoint = stopped(watched)
    other = watched.runtime.checkpoints / "of-last-year"
    shutil.copytree(checkpoint, other)
    refused(watched, Wish.RETIRE, "of-last-year is of query q, and so is the checkpoint of bronze_", "of-last-year")
    (other / "metadata").write_text('{"id":"z"}')
    refused(watched, Wish.RETIRE, "of-last-year was written to at .* within 24 h: end its query, and ask again", "of-last-year")
    old = time.time() - timedelta(days=40).total_seconds()
    for path in other.rglob("*"):
        os.utime(path, (old, old))
    before = files(other)
    body = do(watched, Wish.RETIRE, "of-last-year", stream="all")
    assert "of-last-year, which no stream claims" in body and "only you can know" in body
    (entry,) = lying(watched)
    assert files(entry.checkpoint) == before and entry.manifest is not None and entry.manifest.about["stream"] is None
    with database.connect(watched.runtime, "reader") as connection:
        (row,) = audit.recent(connection, "of-last-year")
    assert (row["action"], row["outcome"], row["before"]) == ("retire", "done", {})
    do(watched, Wish.RESTORE, "of-last-year")
    assert files(other) == before and tombstone(watched, "of-last-year") is None
    do(watched, Wish.RETIRE, "of-last-year")
    (entry,) = lying(watched)
    do(watched, Wish.RESTORE, entry.folder.name)
    assert files(other) == before and checkpoint.exists()
    do(watched, Wish.RETIRE, "of-last-year")
    shutil.copytree(checkpoint, other)
    (other / "commits" / "2").write_text("a query that runs")
    (entry,) = lying(watched)
    with pytest.raises(Refused, match="of-last-year was written to at .* within 24 h: end its query"):
        retiring.restore(watched.runtime, Subject("of-last-year", None), entry, who="ann", reason="again")
    assert (other / "commits" / "2").exists() and lying(watched) == [entry]
    (other / "commits" / "2").unlink()
    with pytest.raises(control.RequestRefused, match="and so is the checkpoint of"):
        control.check(watched.runtime, request(Wish.RETIRE, "of-last-year"))
