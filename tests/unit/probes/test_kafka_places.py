"""Where a topic begins and ends, asked of the broker that librdkafka brings for tests."""

from __future__ import annotations

from confluent_kafka import Producer

from k2.probes.kafka import KafkaHeads


def test_starts_and_ends_of_every_partition() -> None:
    """The first offset that is held, and the next one."""
    producer = Producer({"test.mock.num.brokers": 1, "log_level": 2})
    for number in range(14):
        producer.produce("t", b"x", partition=number % 2)
    assert producer.flush(10) == 0
    broker = next(iter(producer.list_topics().brokers.values()))
    heads = KafkaHeads(f"{broker.host}:{broker.port}")
    starts, ends = heads.starts(["t"]), heads.ends(["t"])
    heads.close()
    assert {(starts["t"][p], ends["t"][p]) for p in ("0", "1")} == {(0, 7)}
    assert set(starts["t"]) == set(ends["t"])
