"""The pre-flight: what it asks of whom, and that silence is not known."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2.launchers.retention import NotKnown, Preflight
from k2.probes import kafka
from k2.registry.observed import Checkpoint
from k2.registry.platform import load_platform

TOPIC = load_platform().exchanges["binance"].topic
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Kafka:
    """Stands for Kafka, and counts how often it was opened."""

    opened = 0
    starts_at: Any = None

    def __init__(self, bootstrap: str) -> None:
        type(self).opened += 1

    def starts(self, topics: list[str]) -> kafka.Positions:
        if isinstance(self.starts_at, Exception):
            raise self.starts_at
        return {topic: dict(self.starts_at) for topic in topics}

    def ends(self, topics: list[str]) -> kafka.Positions:
        return {topic: {"0": 100} for topic in topics}

    def close(self) -> None:
        pass


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(kafka, "KafkaHeads", Kafka)
    monkeypatch.setattr(Kafka, "opened", 0)
    monkeypatch.setattr(Kafka, "starts_at", {"0": 0})
    return SimpleNamespace(platform=load_platform(), kafka="-", checkpoint=lambda stream: tmp_path / stream)


def checkpoint(offset: int) -> Checkpoint:
    return Checkpoint("q", 3, 3, NOW, {TOPIC: {"0": offset}})


def catalog(location: str | None) -> Any:
    """A connection whose catalog knows the table at this place, or no such table."""
    row = None if location is None else {"metadata_location": location}
    return SimpleNamespace(execute=lambda *_: SimpleNamespace(fetchone=lambda: row))


def test_a_stream_of_a_topic_is_compared_with_it(runtime: Any) -> None:
    """What Kafka still holds is no loss; below its start it is one."""
    assert Preflight(runtime, "bronze_binance").loss(catalog(None), checkpoint(7)) is None
    Kafka.starts_at = {"0": 8}
    found = Preflight(runtime, "bronze_binance").loss(catalog(None), checkpoint(7))
    assert found is not None and found.lost == {"0": (7, 8)}


def test_the_batch_in_flight_counts(runtime: Any, tmp_path: Path) -> None:
    """It was planned to an end that the topic no longer has."""
    folder = tmp_path / "bronze_binance" / "offsets"
    folder.mkdir(parents=True)
    (folder / "4").write_text(f'v1\n{{}}\n{{"{TOPIC}": {{"0": 101}}}}')
    planned = Checkpoint("q", 4, 3, NOW, {TOPIC: {"0": 7}})
    found = Preflight(runtime, "bronze_binance").loss(catalog(None), planned)
    assert found is not None and "partition 0 ends at 100, and 101 was reached already" in found.sentence


def test_a_silent_broker_is_not_known(runtime: Any) -> None:
    """Neither a loss nor none."""
    Kafka.starts_at = kafka.KafkaSilent("no answer")
    with pytest.raises(NotKnown, match="no answer"):
        Preflight(runtime, "bronze_binance").loss(catalog(None), checkpoint(7))


def test_a_stream_of_a_table_never_asks_kafka(runtime: Any) -> None:
    """A broker that is away delays no start of Silver; a table whose metadata cannot be read does."""
    preflight = Preflight(runtime, "silver_binance")
    position = Checkpoint("q", 3, 3, NOW, {"version": 1, "snapshot_id": 5, "position": 1, "scan_all_files": False})
    for location, words in ((None, "not in the catalog"), ("file:/nowhere.json", "FileNotFoundError"), ("s3://b/m.json", "cannot be read")):
        with pytest.raises(NotKnown, match=words):
            preflight.loss(catalog(location), position)
    assert Kafka.opened == 0
    assert not [t for t in threading.enumerate() if t.name == "k2-preflight"]


def test_a_stream_that_never_committed_has_nothing_to_lose(runtime: Any) -> None:
    """Its start waits for no answer."""
    Kafka.starts_at = kafka.KafkaSilent("no answer")
    assert Preflight(runtime, "bronze_binance").loss(catalog(None), Checkpoint(None, None, None, None, None)) is None


def test_without_a_checkpoint_a_table_with_rows_would_have_them_twice(runtime: Any, tmp_path: Path) -> None:
    """A table without a commit would not."""
    nothing = Checkpoint(None, None, None, None, None)
    empty, full = tmp_path / "v0.metadata.json", tmp_path / "v1.metadata.json"
    empty.write_text(json.dumps({"current-snapshot-id": -1, "snapshots": []}))
    full.write_text(json.dumps({"current-snapshot-id": 1, "snapshots": [{"snapshot-id": 1, "timestamp-ms": 1, "summary": {"operation": "append"}}]}))
    for stream, source in (("bronze_binance", f"topic {TOPIC}"), ("silver_binance", "bronze_binance_trades")):
        preflight = Preflight(runtime, stream)
        assert preflight.loss(catalog(empty.as_uri()), nothing) is None
        found = preflight.loss(catalog(full.as_uri()), nothing)
        assert found is not None and found.lost == {}
        assert found.sentence.startswith(f"it has no checkpoint, so it would begin with the oldest that {source} holds, and {stream}_trades would have twice")


def test_a_stream_that_has_not_committed_loses_what_is_behind_its_beginning(runtime: Any, tmp_path: Path) -> None:
    """One that was made again, and waited for longer than its topic keeps records."""
    begun = Checkpoint("q", None, None, None, None)
    Kafka.starts_at = {"0": 90}
    assert Preflight(runtime, "bronze_binance").loss(catalog(None), begun) is None
    start = tmp_path / "bronze_binance" / "sources" / "0" / "0"
    start.parent.mkdir(parents=True)
    start.write_bytes(b"\0v1\n" + json.dumps({TOPIC: {"0": 40}}).encode())
    found = Preflight(runtime, "bronze_binance").loss(catalog(None), begun)
    assert found is not None and found.lost == {"0": (40, 90)}
    start.write_text("torn")
    with pytest.raises(NotKnown, match="sources/0/0"):
        Preflight(runtime, "bronze_binance").loss(catalog(None), begun)


def test_an_expired_bronze_snapshot_is_a_loss(runtime: Any, tmp_path: Path) -> None:
    """Main's chain begins behind the snapshot where Silver stands; one that is in it is no loss."""
    snapshots = [
        {"snapshot-id": n, "timestamp-ms": 1_000 * n, "sequence-number": n, "parent-snapshot-id": n - 1, "summary": {"operation": "append"}} for n in (7, 8)
    ]
    metadata = tmp_path / "v8.metadata.json"
    metadata.write_text(json.dumps({"current-snapshot-id": 8, "snapshots": snapshots}))
    preflight, here = Preflight(runtime, "silver_binance"), catalog(metadata.as_uri())
    for snapshot, words in ((7, None), (6, "snapshot 6 of bronze_binance_trades"), (-1, "the beginning of bronze_binance_trades")):
        found = preflight.loss(here, Checkpoint("q", 3, 3, NOW, {"version": 1, "snapshot_id": snapshot, "position": 1, "scan_all_files": False}))
        assert (found is None) if words is None else (found is not None and words in found.sentence and "the oldest retained one is 7" in found.sentence)
