"""The Kafka side of a feed handler: an idempotent producer that never drops a record."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from k2.feeds.bounded_log import BoundedLog
from k2.feeds.metrics import FeedMetrics

if TYPE_CHECKING:
    from k2.registry.platform import Exchange

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
QUEUE_RECORDS = 50_000
"""What may wait for Kafka before reading pauses: some ten minutes of the live market."""


class SinkUnavailable(RuntimeError):
    """Kafka or the schema registry did not answer, or lacks the topic or the schema. The message says what to do."""


class SinkFailed(RuntimeError):
    """The producer met an error that it cannot recover from."""


class KafkaSink:
    """Writes records of one exchange's Avro schema to its topic. Use it from one event loop."""

    def __init__(self, exchange: Exchange, kafka: str, schema_registry: str, metrics: FeedMetrics) -> None:
        self._exchange, self._kafka, self._metrics = exchange, kafka, metrics
        self._registry = SchemaRegistryClient({"url": schema_registry, "timeout": 5})
        # The committed schema is looked up, never the newest one: what is written is what this code builds.
        self._serialise = AvroSerializer(self._registry, exchange.avro_schema(), conf={"auto.register.schemas": False, "normalize.schemas": True})
        self._context = SerializationContext(exchange.topic, MessageField.VALUE)
        self._notes = BoundedLog(log)
        self.undelivered = 0
        """Records that Kafka refused for good."""
        self.failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Gets the reason of a fatal error."""
        self._producer = Producer(
            {
                "bootstrap.servers": kafka,
                "client.id": f"k2-feed-{exchange.decoder}",
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 10,
                "queue.buffering.max.messages": QUEUE_RECORDS,
                # 0 = retry for ever: while Kafka is away the queue fills, reading pauses, and nothing is given up.
                "message.timeout.ms": 0,
                "error_cb": self._on_error,
                # Broken connections are reported by error_cb, and there in bounded number.
                "log_level": 2,
            }
        )
        self._poller = asyncio.create_task(self._poll(), name="kafka-poll")

    async def prepare(self, timeout_seconds: float, stop: asyncio.Event) -> None:
        """Wait until the topic and the schema exist, or until asked to stop. Raises SinkUnavailable."""
        deadline = time.monotonic() + timeout_seconds
        while not stop.is_set() and (problem := await asyncio.to_thread(self._problem)) is not None:
            if time.monotonic() >= deadline:
                raise SinkUnavailable(problem)
            self._notes.warning("waiting", problem)
            await asyncio.sleep(0.5)

    def _problem(self) -> str | None:
        topic, subject = self._exchange.topic, self._exchange.subject
        try:
            metadata = AdminClient({"bootstrap.servers": self._kafka}).list_topics(timeout=3)
        except KafkaException as error:
            return f"Kafka at {self._kafka} does not answer ({error}): is it up?"
        if topic not in metadata.topics:
            return f"topic {topic} does not exist on {self._kafka}: ./k2 up creates it"
        try:
            self._registry.lookup_schema(subject, Schema(self._exchange.avro_schema(), "AVRO"), normalize_schemas=True)
        except SchemaRegistryError as error:
            return f"the schema registry does not hold include/config/avro/{self._exchange.schema_file} under {subject} ({error}): ./k2 up registers it"
        except Exception as error:
            # The client lets through the errors of whichever HTTP library its version uses.
            return f"the schema registry does not answer ({error}): is it up?"
        return None

    async def send(self, key: str, record: dict[str, Any]) -> None:
        """Hand one record over; waits while the producer's queue is full. Raises SinkFailed."""
        value = self._serialise(record, self._context)
        while True:
            if self.failure.done():
                raise SinkFailed(self.failure.result())
            try:
                self._producer.produce(self._exchange.topic, value, key.encode(), on_delivery=self._on_delivery)
                return
            except KafkaException as error:
                raise SinkFailed(str(error)) from error
            except BufferError:
                self._metrics.backpressure.inc()
                await asyncio.sleep(POLL_SECONDS)

    async def close(self, timeout_seconds: float) -> int:
        """Flush, and return how many records Kafka did not acknowledge in time or refused."""
        remaining = await asyncio.to_thread(self._producer.flush, timeout_seconds)
        self._poller.cancel()
        await asyncio.gather(self._poller, return_exceptions=True)
        refused = self.undelivered
        if remaining:
            self._producer.purge()
        del self._producer
        return remaining + refused

    async def _poll(self) -> None:
        try:
            while True:
                self._producer.poll(0)
                await asyncio.sleep(POLL_SECONDS)
        except Exception as error:
            # Without the poll no acknowledgement is ever seen: the feed must end rather than look busy.
            self._fail(f"the producer's poll failed: {error!r}")
            raise

    def _fail(self, reason: str) -> None:
        if not self.failure.done():
            self.failure.set_result(reason)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._metrics.produced.inc()
            return
        self.undelivered += 1
        self._metrics.produce_errors.inc()
        self._notes.warning("not delivered", str(error), message.key() or b"")

    def _on_error(self, error: KafkaError) -> None:
        self._notes.warning("kafka", error.str())
        if error.fatal():
            self._fail(error.str())
