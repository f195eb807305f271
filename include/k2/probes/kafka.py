"""Where the topics begin and end, and when records in them were written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from k2.registry.observed import Head

if TYPE_CHECKING:
    from confluent_kafka import Consumer

T = TypeVar("T")

ANSWER_SECONDS = 5.0
RECORDS_SECONDS = 2.0

Positions = dict[str, dict[str, int]]
"""{topic: {partition: offset}}, as in a checkpoint."""


class KafkaSilent(RuntimeError):
    """The broker did not answer, or not for every partition."""


class KafkaAway(KafkaSilent):
    """The broker did not answer at all."""

    dependency = "kafka"


class KafkaHeads:
    """One consumer, kept for as long as the broker answers it; it joins no group and commits nothing."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._kept: Consumer | None = None

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    @property
    def _consumer(self) -> Consumer:
        from confluent_kafka import Consumer

        if self._kept is None:
            self._kept = Consumer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": "k2-probe",
                    "enable.auto.commit": False,
                    "auto.offset.reset": "error",
                    "fetch.wait.max.ms": 50,
                    # Without it a second partition's first record comes a second after the first one's.
                    "fetch.queue.backoff.ms": 0,
                    "fetch.message.max.bytes": 1024,
                    "queued.min.messages": 1,
                    "log_level": 2,
                }
            )
        return self._kept

    def ends(self, topics: Iterable[str]) -> Positions:
        """The next offset of every partition. Raises KafkaSilent, KafkaAway when there is no answer at all."""
        from confluent_kafka import OFFSET_END

        return self._all(topics, OFFSET_END)

    def starts(self, topics: Iterable[str]) -> Positions:
        """The first offset that every partition still holds. Raises KafkaSilent."""
        from confluent_kafka import OFFSET_BEGINNING

        return self._all(topics, OFFSET_BEGINNING)

    def _all(self, topics: Iterable[str], place: int) -> Positions:
        wanted = list(topics)
        partitions = {topic: self._partitions(topic) for topic in wanted}
        return self._offsets([(topic, number, place) for topic in wanted for number in partitions[topic]])

    def oldest(self, positions: Positions) -> datetime | None:
        """The earliest timestamp among the records at these positions; None when Kafka gave none for one of them in time."""
        found = self._next(positions)
        return min((at for _, at in found.values()), default=None) if len(found) == sum(map(len, positions.values())) else None

    def timestamps(self, positions: Positions) -> dict[str, dict[str, datetime]]:
        """{topic: {partition: timestamp}} of the records with just these offsets, without those that Kafka has deleted from the middle of its log.

        Raises KafkaSilent when there is no answer for one of them in time, as for an offset outside the log.
        """
        found = self._next(positions)
        there: dict[str, dict[str, datetime]] = {}
        for topic, numbers in positions.items():
            if silent := [number for number in numbers if (topic, int(number)) not in found]:
                raise KafkaSilent(f"partition {silent[0]} of {topic}: the record with offset {numbers[silent[0]]} did not come within {RECORDS_SECONDS:g} s")
            records = {number: (wanted, *found[topic, int(number)]) for number, wanted in numbers.items()}
            there[topic] = {number: at for number, (wanted, offset, at) in records.items() if offset == wanted}
        return there

    def _next(self, positions: Positions) -> dict[tuple[str, int], tuple[int, datetime]]:
        """Offset and timestamp of the first record at or behind each position, of those that came in time."""
        from confluent_kafka import TopicPartition

        waiting = {(topic, int(number)): offset for topic, numbers in positions.items() for number, offset in numbers.items()}
        consumer = self._consumer
        found: dict[tuple[str, int], tuple[int, datetime]] = {}
        try:
            consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in waiting.items()])
            deadline = time.monotonic() + RECORDS_SECONDS
            while waiting and time.monotonic() < deadline:
                for message in consumer.consume(len(waiting), 0.1):
                    place = message.topic(), message.partition()
                    if message.error() is None and waiting.pop(place, None) is not None:
                        found[place] = message.offset(), datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
        finally:
            consumer.unassign()
        return found

    def _ask(self, question: Callable[[Consumer], T]) -> T:
        """The answer to a question. Raises KafkaAway when there is none in time.

        The next question has a client of its own then: after a broker was frozen, one was seen that never connected again.
        """
        from confluent_kafka import KafkaException

        try:
            return question(self._consumer)
        except KafkaException as error:
            self.close()
            raise KafkaAway(f"Kafka at {self._bootstrap} did not answer: {error}") from error

    def _partitions(self, topic: str) -> list[int]:
        described = self._ask(lambda consumer: consumer.list_topics(topic, timeout=ANSWER_SECONDS)).topics[topic]
        if described.error is not None:
            raise KafkaSilent(f"topic {topic}: {described.error}")
        return sorted(described.partitions)

    def _offsets(self, wanted: list[tuple[str, int, int]]) -> Positions:
        from confluent_kafka import TopicPartition

        places = [TopicPartition(*place) for place in wanted]
        answers = self._ask(lambda consumer: consumer.offsets_for_times(places, timeout=ANSWER_SECONDS))
        found: Positions = {}
        for answer in answers:
            if answer.error is not None or answer.offset < 0:
                raise KafkaSilent(f"partition {answer.partition} of {answer.topic}: {answer.error or 'no offset'}")
            found.setdefault(answer.topic, {})[str(answer.partition)] = answer.offset
        return found


def uncommitted(ends: Mapping[str, int], committed: Mapping[str, int]) -> dict[str, int]:
    """Per partition that holds more than is committed, the next offset to commit; a partition never seen begins at 0."""
    return {number: committed.get(number, 0) for number, end in ends.items() if end > committed.get(number, 0)}


def head(kafka: KafkaHeads, topic: str, ends: Mapping[str, int], committed: Mapping[str, Any] | None, now: datetime) -> Head:
    """The topic's end, and the lag in records and in seconds since the first uncommitted one was written.

    Both lags are None before the first commit, when it is not known where the stream begins.
    """
    position = {topic: dict(ends)}
    if committed is None or topic not in committed:
        return Head(position, lag_rows=None, lag_seconds=None)
    behind = uncommitted(ends, committed[topic])
    rows = sum(ends[number] - offset for number, offset in behind.items())
    if not behind:
        return Head(position, lag_rows=0, lag_seconds=0.0)
    oldest = kafka.oldest({topic: behind})
    return Head(position, lag_rows=rows, lag_seconds=None if oldest is None else max(0.0, (now - oldest).total_seconds()))
