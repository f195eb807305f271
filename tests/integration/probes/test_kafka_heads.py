"""Where topics end and how old their records are, from a real broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from k2.probes import kafka
from k2.probes.kafka import KafkaHeads, KafkaSilent
from k2.registry.runtime import Runtime


@pytest.fixture
def topic(base_stack: Runtime) -> Iterator[str]:
    """A topic of two partitions: 0 holds three records, the oldest an hour old, 1 holds none."""
    name = f"probe-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": base_stack.kafka})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(20)
    producer = Producer({"bootstrap.servers": base_stack.kafka})
    for age in (3600, 60, 5):
        producer.produce(name, b"x" * 4000, partition=0, timestamp=int((time.time() - age) * 1000))
    assert producer.flush(20) == 0
    yield name
    admin.delete_topics([name])[name].result(20)


@pytest.fixture
def heads(base_stack: Runtime) -> Iterator[KafkaHeads]:
    made = KafkaHeads(base_stack.kafka)
    yield made
    made.close()


def test_ends_of_every_partition(heads: KafkaHeads, topic: str) -> None:
    """An empty partition ends at 0; the numbers are those of a checkpoint, by partition name."""
    assert heads.ends([topic]) == {topic: {"0": 3, "1": 0}}


def test_the_age_of_the_first_uncommitted_record(heads: KafkaHeads, topic: str) -> None:
    """The record at the position counts, whatever lies before it, and asking again at another position works."""
    for offset, age in ((0, 3600), (1, 60), (2, 5), (0, 3600)):
        found = heads.oldest({topic: {"0": offset}})
        assert found is not None
        assert abs(datetime.now(UTC) - found - timedelta(seconds=age)) < timedelta(seconds=30)


def test_when_single_records_were_written(heads: KafkaHeads, topic: str, base_stack: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its own offset. One that Kafka has deleted gives no answer."""
    first, last = (heads.timestamps({topic: {"0": offset}})[topic]["0"] for offset in (0, 2))
    assert heads.oldest({topic: {"0": 0}}) == first
    assert abs(last - first - timedelta(seconds=3595)) < timedelta(seconds=1)
    admin = AdminClient({"bootstrap.servers": base_stack.kafka})
    admin.delete_records([TopicPartition(topic, 0, 1)])[TopicPartition(topic, 0, 1)].result(20)
    monkeypatch.setattr(kafka, "RECORDS_SECONDS", 0.5)
    with pytest.raises(KafkaSilent, match="the record with offset 0 did not come"):
        heads.timestamps({topic: {"0": 0}})


def test_many_partitions_take_no_longer(heads: KafkaHeads, base_stack: Runtime) -> None:
    """Six partitions that are behind are read in a fraction of a second, again and again."""
    name = f"probe-{uuid.uuid4().hex[:8]}"
    admin, producer = AdminClient({"bootstrap.servers": base_stack.kafka}), Producer({"bootstrap.servers": base_stack.kafka})
    admin.create_topics([NewTopic(name, 6, 1)])[name].result(20)
    for number in range(60):
        producer.produce(name, b"x" * 200, partition=number % 6)
    assert producer.flush(20) == 0
    heads.oldest({name: {"0": 0}})
    for offset in (0, 5, 9):
        started = time.monotonic()
        assert heads.oldest({name: {str(number): offset for number in range(6)}}) is not None
        assert time.monotonic() - started < 1.5
    admin.delete_topics([name])[name].result(20)


def test_a_position_without_a_record_has_no_age(heads: KafkaHeads, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one of the records does not come in time, no age is made up from the others."""
    monkeypatch.setattr(kafka, "RECORDS_SECONDS", 0.5)
    assert heads.oldest({topic: {"0": 0, "1": 0}}) is None


def test_what_kafka_cannot_tell_is_an_error(heads: KafkaHeads, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent topic is not an empty one, and a broker that is away says so within the limit."""
    with pytest.raises(KafkaSilent, match="no-such-topic"):
        heads.ends([topic, "no-such-topic"])
    monkeypatch.setattr(kafka, "ANSWER_SECONDS", 0.5)
    away = KafkaHeads("127.0.0.1:1")
    with pytest.raises(KafkaSilent, match="Kafka at 127.0.0.1:1 did not answer"):
        away.ends([topic])
    away.close()
