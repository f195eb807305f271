"""A real Bronze stream whose next records Kafka no longer holds."""

from __future__ import annotations

import shutil
import time
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from streams_lab import PARTITIONS, Lab, RunningDriver
from streams_records import NOW_MS

from k2.checkpoints.entries import entries
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.reader import read_tail
from k2.launchers.retention import Preflight
from k2.launchers.start import NotSafe, start
from k2.registry.certificate import Color
from k2.state import streams
from k2.state.database import connect
from k2.watchdog.certifying import certify_due

pytestmark = pytest.mark.full

EXCHANGE = "kraken"


class Agent:
    """Stands for the host agent: launches a driver of the lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.launched: list[RunningDriver] = []

    def drivers(self) -> dict[str, Any]:
        return {}

    def launch(self, stream: str, fence: int, *, spare: bool) -> Any:
        self.launched.append(self.lab.launch(stream, fence))
        return SimpleNamespace(how="cold")

    def start(self, stream: str) -> RunningDriver:
        with connect(self.lab.runtime, "reader") as connection:
            wanted = streams.wanted(connection, stream)
        start(self.lab.runtime, self, stream, fence=wanted.fence, generation=wanted.generation, reason="test")  # type: ignore[arg-type]
        return self.launched[-1]


@pytest.mark.timeout(600)
def test_records_that_retention_took(lab: Lab) -> None:
    """The start is refused with the exact range; adopted, the stream goes on behind it, and its certificate names what was accepted."""
    stream = f"bronze_{lab.name}_{EXCHANGE}"
    agent = Agent(lab)
    lab.produce(EXCHANGE, [b"one"] * 10 * PARTITIONS, NOW_MS)
    first = agent.start(stream)
    lab.wait_until(lambda: len(lab.rows(stream)) == 10 * PARTITIONS and lab.is_settled(stream), "the first batch", alive=first, pause=0.3)
    lab.seen(first)
    first.kill()
    lab.produce(EXCHANGE, [b"two"] * 10 * PARTITIONS, NOW_MS)
    topic = lab.platform.exchanges[EXCHANGE].topic
    for deleted in lab.kafka.delete_records([TopicPartition(topic, 0, 15)]).values():
        deleted.result()

    began = time.monotonic()
    assert Preflight(lab.runtime, stream)._kafka.result(10) == ({topic: {"0": 15, "1": 0, "2": 0}}, {topic: {"0": 20, "1": 20, "2": 20}})
    took = time.monotonic() - began
    print(f"Kafka was asked in {took * 1000:.0f} ms")
    assert took < 1
    lost = f"Kafka no longer holds 5 records of {topic} that were not read: partition 0 \\[10, 15\\)"
    with pytest.raises(NotSafe, match=lost):
        agent.start(stream)
    assert len(agent.launched) == 1

    with connect(lab.runtime, "control") as connection:
        assert streams.wanted(connection, stream).held_for
        streams.forget_checkpoint(connection, stream, {"sentence": "5 records", "lost": {"0": [10, 15]}})
        streams.want(connection, stream, "running", who="test", action="adopt", reason="test")
    second = agent.start(stream)
    lab.wait_until(lambda: len(lab.rows(stream)) == 20 * PARTITIONS - 5 and lab.is_settled(stream), "the rest", alive=second, pause=0.3)
    lab.seen(second)
    certificate = next(w.certificate for w in certify_due(lab.runtime) if w.stream == stream)
    assert certificate is not None and certificate.color is Color.GREEN, certificate
    evidence = next(c.evidence for c in certificate.checks if c.name == "offsets continue")
    assert "accepted by a person: partition 0: batch 1 begins at 15, batch 0 ended at 10: 5 records missing" in evidence
    second.kill()


@pytest.mark.timeout(600)
def test_an_adopted_checkpoint_that_ends_before_its_table(lab: Lab) -> None:
    """Put back from an older copy, it plans batches whose numbers the table has. Nothing new may be passed by; what is written again is there twice."""
    stream = f"bronze_{lab.name}_{EXCHANGE}"
    agent = Agent(lab)
    path = lab.checkpoint(stream)
    lab.produce(EXCHANGE, [b"older 0"] * PARTITIONS, NOW_MS)
    first = agent.start(stream)
    settled = lambda: lab.is_settled(stream)  # noqa: E731
    lab.wait_until(lambda: has(lab, stream, b"older 0") >= PARTITIONS and settled(), "the first batch", alive=first, pause=0.3)
    first.kill()
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    first = agent.start(stream)
    for value in (b"older 1", b"older 2"):
        lab.produce(EXCHANGE, [value] * PARTITIONS, NOW_MS)
        lab.wait_until(lambda value=value: has(lab, stream, value) == PARTITIONS and settled(), "another batch", alive=first, pause=0.3)
    lab.seen(first)
    first.kill()
    shutil.rmtree(path)
    copy.rename(path)
    lab.produce(EXCHANGE, [b"older 3"] * PARTITIONS, NOW_MS)
    with pytest.raises(NotSafe, match="ends"):
        agent.start(stream)

    with connect(lab.runtime, "control") as connection:
        streams.forget_checkpoint(connection, stream)
        streams.want(connection, stream, "running", who="test", action="adopt", reason="test")
    before = read_tail(path)
    second = agent.start(stream)
    lab.wait_until(lambda: has(lab, stream, b"older 3") >= PARTITIONS and settled(), "what came while it was down", alive=second, pause=0.3)
    assert [has(lab, stream, value) for value in (b"older 1", b"older 2", b"older 3")] == [2 * PARTITIONS, 2 * PARTITIONS, PARTITIONS]
    after = read_tail(path)
    assert after.query_id != before.query_id and after.last_commit_batch == (before.last_commit_batch or 0) + 1
    (aside,) = [entry for entry in entries(quarantine_of(path.parent)) if entry.manifest and entry.manifest.folder == path.name]
    assert read_tail(aside.checkpoint) == before
    second.kill()


def has(lab: Lab, stream: str, value: bytes) -> int:
    """How many rows of this value its table has."""
    return sum(row["raw_bytes"] == value for row in lab.rows(stream))
