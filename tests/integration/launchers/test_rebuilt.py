"""A checkpoint that is made again on request, by the start of its stream: whole or not at all, whatever breaks it off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k2.airflow import control
from k2.checkpoints.entries import Entry, entries
from k2.checkpoints.manifest import Kind
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.reader import read_offsets, read_tail
from k2.launchers import rebuilding, retiring
from k2.launchers import start as protocol
from k2.launchers.client import AgentClient
from k2.registry.history import Launch
from k2.registry.observed import Action, Verdict
from k2.registry.wishes import Wish
from k2.state import certificates, database, retired, streams

from ...tables import Written, run
from .killing import killed_at

STREAM, SILVER = "bronze_binance", "silver_binance"
FOLDER = "bronze-binance"
MOST_STEPS, LEAST_STEPS = 100, 50

Watched = Any


class Tables:
    """The tables of both streams in the test's catalog; Bronze holds records of partition 0."""

    def __init__(self, watched: Watched, folder: Path) -> None:
        self.runtime = watched.runtime
        self.folder = folder
        self.bronze = Written(folder)
        self.topic = self.runtime.platform.exchanges[self.runtime.platform.streams[STREAM].exchange].topic
        self.snapshots: list[int] = []

    def append(self, first: int, end: int) -> None:
        self.snapshots.append(self.bronze.append(run(0, first, end), topic=self.topic))
        self.put(self.runtime.platform.streams[STREAM].writes[0], self.bronze.location)

    def silver(self, batches: list[tuple[int, int]]) -> None:
        """Silver with a batch for each of Bronze's snapshots, which reads these offsets and keeps all of them."""
        silver, dlq = self.runtime.platform.streams[SILVER].writes
        made = []
        for batch, ((first, end), reached) in enumerate(zip(batches, self.snapshots, strict=True)):
            said = {"query-id": "q", "batch-id": batch, "fence": 1, "rows-read": end - first, "rows-silver": end - first, "rows-dlq": 0}
            said |= {"bronze-snapshot": reached, "bronze-offsets": json.dumps({"0": [first, end - 1]})}
            summary = {"operation": "append", "added-records": str(end - first)} | {f"k2.{name}": str(value) for name, value in said.items()}
            parent = {"parent-snapshot-id": batch} if batch else {}
            made.append({"snapshot-id": batch + 1, "sequence-number": batch + 1, "timestamp-ms": 1_700_000_000_000 + batch, "summary": summary} | parent)
        for table, snapshots in ((silver, made), (dlq, [])):
            file = self.folder / f"{table}.json"
            file.write_text(json.dumps({"snapshots": snapshots, "current-snapshot-id": len(snapshots) or -1}))
            self.put(table, file.as_uri())

    def put(self, table: str, location: str) -> None:
        with database.connect(self.runtime, "control") as connection:
            connection.execute("DELETE FROM iceberg_tables WHERE table_name = %s", (table,))
            connection.execute("INSERT INTO iceberg_tables VALUES ('k2', 'market_data', %s, %s, NULL, 'TABLE')", (table, location))


@pytest.fixture
def tables(watched: Watched, tmp_path: Path) -> Iterator[Tables]:
    made = Tables(watched, tmp_path)
    yield made
    made.bronze.close()


def up(watched: Watched, tables: Tables) -> Path:
    """All streams run, Bronze has committed 40 records and the watchdog knows that. Returns Bronze's checkpoint."""
    watched.up()
    tables.append(0, 40)
    for batch in (39, 40):
        watched.commit(STREAM, batch)
    watched.kafka.end = 50
    watched.look()
    return Path(watched.runtime.checkpoint(STREAM))


def ask(watched: Watched, stream: str = STREAM) -> control.Checked:
    return control.check(watched.runtime, request(stream))


def request(stream: str = STREAM) -> control.Request:
    return control.Request(Wish.REBUILD, stream, "its disk was lost", "ann", "run")


def approve(watched: Watched, asked: control.Checked, stream: str = STREAM) -> None:
    control.record(watched.runtime, request(stream), approved_by="bob", shown=asked.loss)


def wanted(watched: Watched, stream: str = STREAM) -> Any:
    with database.connect(watched.runtime, "reader") as connection:
        return streams.wanted(connection, stream)


def put_away(watched: Watched) -> list[Entry]:
    return [entry for entry in entries(quarantine_of(watched.runtime.checkpoints)) if entry.checkpoint.is_dir()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begins(query: str, topic: str, offset: int) -> dict[str, bytes]:
    """The files of a checkpoint of Bronze that begins there."""
    return {"metadata": json.dumps({"id": query}, separators=(",", ":")).encode(), "sources/0/0": f'\0v1\n{{"{topic}":{{"0":{offset}}}}}'.encode()}


def test_a_checkpoint_that_is_gone_is_made_again(watched: Watched, tables: Tables) -> None:
    """Held as REWIND, told to whoever approves where it will go on, and started behind what the table holds; the ledger says so."""
    checkpoint = up(watched, tables)
    watched.kill()
    shutil.rmtree(checkpoint)
    assert watched.look()[STREAM].verdict is Verdict.REWIND
    asked = ask(watched)
    assert asked.risky and asked.loss is not None
    sentence = f"A new query {asked.loss['query']} goes on in topic {tables.topic}: partition 0 from 40 (Bronze has [0, 40), Kafka ends at 50)"
    assert f"**Found now:** {sentence}" in asked.body and "Lost: nothing.\n" in asked.body and "belongs to no query" in asked.body
    with pytest.raises(control.RequestRefused, match="needs an approval, and nobody gave one"):
        control.record(watched.runtime, request(), shown=asked.loss)
    approve(watched, asked)
    assert wanted(watched).known_query_id == "q", "what is known of the old one stays until it is replaced"
    done = watched.watch()[STREAM]
    assert (done.action, done.fence) == (Action.START, 2)
    assert files(checkpoint) == begins(asked.loss["query"], tables.topic, 40) and put_away(watched) == []
    launch = watched.ledger()[-1]
    assert (launch["rebuilt"], launch["adopted"], launch["accepted_loss"], launch["begins_after"]) == (True, True, None, None)
    assert (wanted(watched).known_query_id, wanted(watched).known_batch) == (None, None)
    with database.connect(watched.runtime, "reader") as connection:
        assert certificates.ledger(connection, STREAM)[2] == {1: Launch(), 2: Launch(adopted=True, rebuilt=True)}
    assert not watched.runtime.accepted_loss(STREAM, 2).exists()
    watched.home.wait_begun(len(watched.names) + 1)
    assert watched.watch() == {} and watched.look()[STREAM].verdict is Verdict.STARTING
    watched.kill()
    watched.home.wait_until(lambda: STREAM in watched.watch(), "its backoff is over")
    assert watched.ledger()[-1]["rebuilt"] is False and put_away(watched) == [], "it is made once for a request"


def test_what_lies_in_its_place_is_kept_whole(watched: Watched, tables: Tables) -> None:
    """A damaged one of a stream that runs: the driver is drained first, and every byte goes into the quarantine."""
    checkpoint = up(watched, tables)
    with pytest.raises(
        control.RequestRefused, match=f"'rebuild' of {STREAM}: it is [A-Z]+ and its checkpoint is whole.* use action 'restart', or 'stop' it first"
    ):
        ask(watched)
    (checkpoint / "offsets" / "40").write_text("v9\n")
    (checkpoint / "metadata").write_text("{")
    approve(watched, ask(watched))
    before = files(checkpoint)
    done = watched.watch()[STREAM]
    assert (done.action, done.fence) == (Action.REPLACE, 2) and "fence 1 drained" in done.detail
    (entry,) = put_away(watched)
    assert files(entry.checkpoint) == before and entry.manifest is not None
    assert (entry.manifest.kind, entry.manifest.folder, entry.manifest.about) == (Kind.REPLACED, FOLDER, {"fence": 2})


def test_a_retired_stream_gets_another_checkpoint(watched: Watched, tables: Tables) -> None:
    """Also when what was retired is no longer in the quarantine: the tombstone goes with the launch."""
    checkpoint = up(watched, tables)
    watched.want("stopped")
    watched.watch()
    watched.look()
    retiring.retire(watched.runtime, retiring.Subject(FOLDER, STREAM), who="ann", reason="nobody reads it")
    approve(watched, ask(watched))
    assert watched.watch()[STREAM].fence == 2 and checkpoint.exists()
    with database.connect(watched.runtime, "reader") as connection:
        assert retired.of(connection, FOLDER) is None


def test_silver_goes_on_as_the_same_query(watched: Watched, tables: Tables) -> None:
    """Somebody has stopped it. Its newest batch is planned once more, the one before is committed, and the known identity is what it must be."""
    up(watched, tables)
    tables.append(40, 45)
    tables.silver([(0, 40), (40, 45)])
    watched.commit(SILVER, 1)
    watched.look()
    watched.want("stopped", SILVER)
    watched.watch()
    checkpoint = watched.runtime.checkpoint(SILVER)
    shutil.rmtree(checkpoint)
    asked = ask(watched, SILVER)
    assert "Query q goes on behind batch 1, which Silver has" in asked.body
    approve(watched, asked, SILVER)
    assert watched.watch()[SILVER].fence == 2
    tail = read_tail(checkpoint)
    assert (tail.query_id, tail.last_commit_batch, tail.last_offset_batch) == ("q", 0, 1)
    assert [read_offsets(checkpoint, batch)[0]["snapshot_id"] for batch in (0, 1)] == tables.snapshots  # type: ignore[index]
    assert watched.ledger(SILVER)[-1]["begins_after"] == 0 and wanted(watched, SILVER).known_query_id is None
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.streams SET known_query_id = 'another', known_batch = 1 WHERE stream = %s", (SILVER,))
    with pytest.raises(
        control.RequestRefused, match=f"{SILVER}: its checkpoint cannot be made again: the newest batch in Silver is of query q, and the stream's"
    ):
        ask(watched, SILVER)


def test_a_plan_that_is_refused_refuses_the_request(watched: Watched, tables: Tables) -> None:
    """Bronze has a gap that nobody has accepted, or the topic is not there to be read, or no table is: nothing is recorded, and the reason is said."""
    checkpoint = up(watched, tables)
    watched.kill()
    shutil.rmtree(checkpoint)
    watched.look()
    tables.append(43, 45)
    with pytest.raises(control.RequestRefused, match=r"cannot be proven: partition 0: \[40, 43\) missing, and Kafka may still hold 3 of them"):
        ask(watched)
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.launches SET accepted_loss = %s WHERE stream = %s", (json.dumps({"0": [40, 43]}), STREAM))
    assert "except what is accepted: partition 0: [40, 43) missing" in ask(watched).body, "what a person has accepted before needs no other word"
    watched.kafka.start = None
    with pytest.raises(control.RequestRefused, match="Kafka was asked where the topic of bronze_binance begins and ends: Kafka did not answer"):
        ask(watched)
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("DELETE FROM iceberg_tables")
    with pytest.raises(control.RequestRefused, match="cannot be made again: table bronze_binance_trades is not in the catalog"):
        ask(watched)
    assert wanted(watched).generation == 1


def test_a_plan_that_would_lose_more_is_held_again(watched: Watched, tables: Tables) -> None:
    """Before it is recorded it is refused; after that nothing is touched, no fence raised, and it waits for another word, which then counts."""
    checkpoint = up(watched, tables)
    watched.kill()
    (checkpoint / "metadata").unlink()
    watched.look()
    asked = ask(watched)
    watched.kafka.start = 45
    with pytest.raises(control.RequestRefused, match="lose more by now than whoever approved it was told: .* Lost: 5 records that Kafka has deleted"):
        approve(watched, asked)
    watched.kafka.start = 0
    approve(watched, asked)
    watched.kafka.start = 45
    before = files(checkpoint)
    held = "to make its checkpoint again would lose more by now than whoever approved it was told: A new query"
    assert held in watched.watch()[STREAM].detail
    found = watched.look()[STREAM]
    assert (found.verdict, found.action) == (Verdict.REWIND, Action.NONE) and "Kafka has deleted [40, 45)" in found.because
    assert wanted(watched).fence == 1 and files(checkpoint) == before and put_away(watched) == []
    assert any(i["severity"] == "page" and held in i["detail"] for i in watched.incidents())
    watched.want("running")
    assert watched.watch() == {}, "a plain start does not override it"
    again = ask(watched)
    assert again.loss is not None and again.loss["lost"] == {"0": [40, 45]}
    approve(watched, again)
    assert watched.watch()[STREAM].fence == 2
    assert watched.ledger()[-1]["accepted_loss"] == {"0": [40, 45]} and files(checkpoint) == begins(again.loss["query"], tables.topic, 45)
    assert not watched.runtime.accepted_loss(STREAM, 2).exists(), "its driver begins behind it, and may skip nothing"


def test_a_plan_that_is_impossible_by_now_is_held_again(watched: Watched, tables: Tables) -> None:
    """The topic was cut after the approval. While Kafka does not answer it is only tried again."""
    checkpoint = up(watched, tables)
    watched.kill()
    shutil.rmtree(checkpoint)
    watched.look()
    approve(watched, ask(watched))
    watched.kafka.start = None
    assert "held: Kafka was asked" in watched.watch()[STREAM].detail and wanted(watched).held_for is None
    watched.kafka.start, watched.kafka.end = 0, 30
    assert "cannot be made again: topic" in watched.watch()[STREAM].detail
    assert watched.look()[STREAM].verdict is Verdict.REWIND and not checkpoint.exists()


def test_a_wish_that_is_overtaken_touches_nothing(watched: Watched, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody stops the stream while its old driver is ended: the checkpoint stays as it is, and a later start finds it held as before."""
    checkpoint = up(watched, tables)
    watched.kill()
    (checkpoint / "metadata").unlink()
    watched.look()
    approve(watched, ask(watched))
    before = files(checkpoint)

    def end_older(*_: Any) -> int:
        watched.want("stopped")
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(protocol, "end_older", end_older)
        assert "nothing left to do: bronze_binance is now wanted stopped" in watched.watch()[STREAM].detail
    assert files(checkpoint) == before and wanted(watched).fence == 1 and put_away(watched) == []
    watched.want("running")
    assert watched.watch() == {} or "held: its checkpoint belongs to no query" in watched.watch()[STREAM].detail
    assert watched.look()[STREAM].verdict is Verdict.REWIND


def test_the_lock_of_the_checkpoint_is_waited_for(watched: Watched, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """While something else works on it nothing is moved; the next look does it."""
    checkpoint = up(watched, tables)
    watched.kill()
    shutil.rmtree(checkpoint)
    watched.look()
    approve(watched, ask(watched))
    monkeypatch.setattr("k2.state.locks.WAIT_MS", 200)
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('k2 checkpoint ' || %s, 0))", (FOLDER,))
        assert "another action on it is under way" in watched.watch()[STREAM].detail and not checkpoint.exists()
    assert watched.watch()[STREAM].fence == 2


def test_killed_at_any_step_it_is_done_once(watched: Watched, tables: Tables) -> None:
    """The next start does it again from the beginning, or goes on with what was recorded: one launch, one checkpoint, the old one kept once."""
    checkpoint = up(watched, tables)
    watched.kill()
    for at in range(1, MOST_STEPS):
        query = f"query-{at}"
        broken = _ready(watched, checkpoint, query)
        killed = killed_at(at, lambda: _start(watched), (rebuilding, "plan"))
        assert _is_old(checkpoint, broken) or put_away(watched), "the old one is nowhere"
        now = wanted(watched)
        while now.launch_generation != now.generation or now.launched_at is None:
            _start(watched)
            now = wanted(watched)
        (entry,) = put_away(watched)
        assert files(entry.checkpoint) == broken, at
        assert files(checkpoint) == begins(query, tables.topic, 40), at
        assert [folder.name for folder in watched.runtime.checkpoints.iterdir() if folder.name.startswith(".")] == []
        mine = [launch for launch in watched.ledger() if launch["generation"] == now.generation]
        assert [(launch["rebuilt"], launch["fence"]) for launch in mine] == [(True, now.fence)], at
        assert (now.known_query_id, now.known_batch) == (None, None)
        watched.home.wait_until(lambda: any(tag == f"{STREAM}#{now.fence}" for tag, _ in watched.home.starts()), "its driver began")  # noqa: B023
        assert sum(tag == f"{STREAM}#{now.fence}" for tag, _ in watched.home.starts()) == 1
        if not killed:
            break
    assert LEAST_STEPS <= at < MOST_STEPS - 1, "the steps are no longer seen"


def _ready(watched: Watched, checkpoint: Path, query: str) -> dict[str, bytes]:
    """The checkpoint is broken, and somebody wants it made again. Returns its files."""
    shutil.rmtree(quarantine_of(watched.runtime.checkpoints), ignore_errors=True)
    shutil.rmtree(checkpoint)
    watched.commit(STREAM, 40)
    (checkpoint / "offsets" / "40").write_text("v9\n")
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.streams SET known_query_id = 'q', known_batch = 40 WHERE stream = %s", (STREAM,))
        told = {"sentence": "", "lost": {}, "query": query}
        streams.want(connection, STREAM, "running", who="test", action="rebuild", reason="test", rebuild=told)
    return files(checkpoint)


def _start(watched: Watched) -> None:
    now = wanted(watched)
    with AgentClient(watched.runtime) as agent:
        protocol.start(watched.runtime, agent, STREAM, fence=now.fence, generation=now.generation, reason="test")


def _is_old(checkpoint: Path, broken: dict[str, bytes]) -> bool:
    return checkpoint.exists() and files(checkpoint) == broken
