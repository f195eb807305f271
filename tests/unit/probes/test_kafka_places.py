"""Where a topic begins and ends and when its records were written, asked of the broker that librdkafka brings for tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from k2.probes import kafka
from k2.probes.kafka import KafkaAway, KafkaHeads, KafkaSilent

AT = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)


@pytest.fixture
def heads() -> Iterator[KafkaHeads]:
    """Of a topic `t` with two partitions of seven records, one a second, in one batch each."""
    producer = Producer({"test.mock.num.brokers": 1, "linger.ms": 200, "log_level": 2})
    for number in range(14):
        producer.produce("t", b"x", partition=number % 2, timestamp=int((AT + timedelta(seconds=number)).timestamp() * 1000))
    assert producer.flush(10) == 0
    broker = next(iter(producer.list_topics().brokers.values()))
    made = KafkaHeads(f"{broker.host}:{broker.port}")
    yield made
    made.close()


def test_starts_and_ends_of_every_partition(heads: KafkaHeads) -> None:
    """The first offset that is held, and the next one."""
    starts, ends = heads.starts(["t"]), heads.ends(["t"])
    assert {(starts["t"][p], ends["t"][p]) for p in ("0", "1")} == {(0, 7)}
    assert set(starts["t"]) == set(ends["t"])


def test_when_single_records_were_written(heads: KafkaHeads) -> None:
    """Each that is asked for, wherever it lies in its batch, and to the millisecond."""
    for first, second in ((6, 0), (3, 6)):
        found = heads.timestamps({"t": {"0": first, "1": second}})
        assert found == {"t": {"0": AT + timedelta(seconds=2 * first), "1": AT + timedelta(seconds=2 * second + 1)}}
    assert heads.timestamps({"t": {}}) == {"t": {}}
    assert heads.oldest({"t": {"0": 3, "1": 1}}) == AT + timedelta(seconds=3)


def test_a_record_that_does_not_come_is_no_answer(heads: KafkaHeads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the end there is none, and nothing is made up for it."""
    monkeypatch.setattr(kafka, "RECORDS_SECONDS", 0.5)
    with pytest.raises(KafkaSilent, match=r"partition 1 of t: the record with offset 7 did not come within 0.5 s"):
        heads.timestamps({"t": {"0": 6, "1": 7}})


def test_another_record_than_the_one_that_was_asked_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka gives the next one where one was compacted away."""
    heads = KafkaHeads("nowhere")
    monkeypatch.setattr(heads, "_next", lambda positions: {("t", 0): (5, AT), ("t", 1): (8, AT)})
    assert heads.timestamps({"t": {"0": 5, "1": 7}}) == {"t": {"0": AT}}


class Wedged:
    """A client that has lost its broker and never connects again."""

    closed = False

    def list_topics(self, *_: object, timeout: float) -> object:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "Failed to get metadata"))

    def close(self) -> None:
        self.closed = True


def test_a_client_that_got_no_answer_is_replaced(heads: KafkaHeads) -> None:
    """A broker that is back is seen to be, however the client that lost it fares."""
    before = heads.ends(["t"])
    heads.close()
    wedged = heads._kept = Wedged()  # type: ignore[assignment]
    with pytest.raises(KafkaAway, match="did not answer"):
        heads.ends(["t"])
    assert wedged.closed and heads.ends(["t"]) == before
