"""A checkpoint that is made again: what its plan is made from, its exchange for the one that lies there, and what is told of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2.checkpoints.entries import entries
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.rebuild_files import files_of
from k2.checkpoints.rebuild_plan import Begin, BronzePlan, Place, SilverPlan
from k2.launchers import rebuilding
from k2.launchers.rebuilding import begins_after, loses_more, replace, told
from k2.launchers.retention import NotKnown
from k2.probes import kafka
from k2.probes.rebuilding import Source
from k2.registry.history import NO_SNAPSHOT, Chain, Commit
from k2.registry.observed import Wanted
from k2.registry.platform import load_platform

from ...tables import Written, kafka_timestamp, run
from ..checkpoints.folders import make

PLATFORM = load_platform()
TOPIC = PLATFORM.exchanges["binance"].topic

SILVER = SilverPlan("s", 7, datetime(2026, 1, 1, tzinfo=UTC), Place(1, 0), Place(2, 0), (5, 5, 0), 0)


def bronze(lost: tuple[int, int] | None = None) -> BronzePlan:
    return BronzePlan("t", "b", (Begin("0", lost[1] if lost else 10, (0, 50), (0, 10), lost),), 1, 0, None)


def test_whoever_approves_is_told_what_it_does() -> None:
    """The plan in its own words, what is lost, and the query that it will be."""
    assert told(bronze((10, 12))) == {"sentence": bronze((10, 12)).sentence().rstrip("."), "lost": {"0": [10, 12]}, "query": "b"}
    assert told(SILVER)["lost"] == {} and told(SILVER)["query"] == "s"


def test_less_than_was_told_may_be_lost_and_no_more() -> None:
    """Whether nothing was told, or not enough."""
    assert not loses_more(told(bronze((10, 12))), bronze()) and not loses_more(told(bronze((10, 12))), bronze((10, 12)))
    assert not loses_more(told(bronze()), bronze()) and not loses_more(told(SILVER), SILVER)
    assert loses_more(told(bronze()), bronze((10, 12))) and loses_more(told(bronze((10, 12))), bronze((10, 13)))


def test_a_start_from_it_begins_behind_what_it_has_committed() -> None:
    """Nothing of a new query, all but the newest batch of Silver's."""
    assert [begins_after(made) for made in (bronze(), SILVER, SilverPlan("s", 0, SILVER.at, SILVER.begin, SILVER.end, SILVER.rows, 0))] == [None, 6, None]


@pytest.mark.parametrize("made", [bronze(), SILVER])
def test_what_is_there_already_stays(made: BronzePlan | SilverPlan, tmp_path: Path) -> None:
    """After a start that was interrupted; a file more, or another byte, is of somebody else and goes into the quarantine."""
    place = tmp_path / "checkpoints" / "x"
    place.parent.mkdir()
    replace(made, place, 6)
    replace(made, place, 7)
    assert entries(quarantine_of(place.parent)) == []
    (place / "commits").mkdir(exist_ok=True)
    (place / "commits" / "99").write_text("v1\n{}")
    replace(made, place, 8)
    (place / "metadata").write_text("{}")
    replace(made, place, 9)
    assert sorted(e.manifest.about["fence"] for e in entries(quarantine_of(place.parent)) if e.manifest) == [8, 9]
    assert {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()} == files_of(made)


def test_what_cannot_be_put_away_stays_and_is_told(tmp_path: Path) -> None:
    """A link to a checkpoint that lies elsewhere: nothing is written through it."""
    root = tmp_path / "checkpoints"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotKnown, match="is a symbolic link"):
        replace(bronze(), root / "x", 6)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_cannot_be_read_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that no longer gives a file of the damaged checkpoint: once somebody has moved that away, the start goes on."""
    place = tmp_path / "checkpoints" / "x"
    make(place)
    read = os.read

    def broken(descriptor: int, count: int) -> bytes:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).endswith("offsets/3"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, count)

    monkeypatch.setattr(os, "read", broken)
    words = f"{place} cannot be put into the quarantine: .*Input/output error: if that cannot be mended, move it out of {place.parent} by hand, and the start"
    with pytest.raises(NotKnown, match=words):
        replace(bronze(), place, 6)
    place.rename(tmp_path / "by-hand")
    replace(bronze(), place, 6)
    assert {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()} == files_of(bronze())


class Kafka:
    """Stands for Kafka, whose topic has one partition; `written`: when its records were, by what it is asked."""

    start, end = 0, 100
    written = staticmethod(kafka_timestamp)

    def __init__(self, bootstrap: str) -> None:
        pass

    def starts(self, topics: list[str]) -> kafka.Positions:
        return {topic: {"0": self.start} for topic in topics}

    def ends(self, topics: list[str]) -> kafka.Positions:
        return {topic: {"0": self.end} for topic in topics}

    def timestamps(self, positions: kafka.Positions) -> dict[str, dict[str, datetime]]:
        if any(not self.start <= offset < self.end for held in positions.values() for offset in held.values()):
            raise kafka.KafkaSilent("no record there")
        return {topic: {partition: type(self).written(offset) for partition, offset in held.items()} for topic, held in positions.items()}

    def close(self) -> None:
        pass


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Bronze's, with 40 records; Kafka and what was accepted before are made up."""
    made = Written(tmp_path)
    made.append(run(0, 0, 40), topic=TOPIC)
    location = made.location
    monkeypatch.setattr(rebuilding, "table_location", lambda *_: location)
    monkeypatch.setattr(rebuilding, "newest_batch", lambda *_: None)
    monkeypatch.setattr(rebuilding.streams, "accepted_losses", lambda *_: {})
    monkeypatch.setattr(kafka, "KafkaHeads", Kafka)
    yield made
    made.close()


def ask(stream: str = "bronze_binance", **known: Any) -> BronzePlan | SilverPlan:
    runtime: Any = SimpleNamespace(platform=PLATFORM, kafka="-")
    connection: Any = None
    return rebuilding.plan(runtime, connection, stream, "b", Wanted("running", 1, 1, **known))


def test_bronze_is_compared_with_what_kafka_still_holds(table: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last record; once Kafka has deleted that, or has none there yet, nobody asks for it."""
    made = ask()
    assert isinstance(made, BronzePlan) and made.begins[0].offset == 40
    with monkeypatch.context() as patch:
        patch.setattr(Kafka, "written", staticmethod(lambda offset: kafka_timestamp(offset + 1)))
        with pytest.raises(rebuilding.Impossible, match="was made anew or cut: record 39 of partition 0 was written at 2026-03-01 00:00:00.039 UTC"):
            ask()
        patch.setattr(Kafka, "start", 40)
        assert rebuilding.lost(ask()) == {}
        patch.setattr(Kafka, "start", 45)
        assert rebuilding.lost(ask()) == {"0": (40, 45)}
        patch.setattr(Kafka, "start", 0)
        patch.setattr(Kafka, "end", 39)
        with pytest.raises(rebuilding.Impossible, match="partition 0 ends at 39, and Bronze has records up to 40"):
            ask()
    with monkeypatch.context() as patch:
        patch.setattr(Kafka, "timestamps", lambda *_: (_ for _ in ()).throw(kafka.KafkaSilent("it did not come")))
        with pytest.raises(NotKnown, match="Kafka was asked .*: it did not come"):
            ask()


def test_silver_is_compared_with_what_was_known_of_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its query and the batch that it had committed."""
    commit = Commit(1, SILVER.at, "append", query="s", batch=0, rows_read=0, rows_silver=0, rows_dlq=0, bronze_snapshot=NO_SNAPSHOT, pieces=())
    monkeypatch.setattr(rebuilding, "table_location", lambda *_: "-")
    monkeypatch.setattr(rebuilding, "read_chain", lambda _: Chain([commit], whole=True))
    monkeypatch.setattr(rebuilding, "read_source", lambda *_: Source((), whole=True))
    assert isinstance(ask("silver_binance"), SilverPlan) and isinstance(ask("silver_binance", known_query_id="s", known_batch=0), SilverPlan)
    with pytest.raises(rebuilding.Impossible, match="its newest batch is 0 of query s, and its checkpoint had committed batch 2"):
        ask("silver_binance", known_query_id="s", known_batch=2)
    with pytest.raises(rebuilding.Impossible, match="is of query s, and the stream's is another"):
        ask("silver_binance", known_query_id="another", known_batch=0)
