"""Feed handlers as processes, with the real Kafka and schema registry: what the market did is what the topic holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from confluent_kafka.admin import AdminClient, NewTopic

from k2.feeds.audit import Audit
from k2.feeds.main import FeedExit
from k2.feeds.metrics import FeedMetrics
from k2.feeds.received import audit_exchange
from k2.feeds.sink import QUEUE_RECORDS, KafkaSink, SinkUnavailable
from k2.registry.files import REGISTRY
from k2.registry.platform import Exchange, parse_platform
from k2.registry.runtime import Runtime

TREE = Path(__file__).resolve().parents[3]
QUICK = {"first_seconds": 0.2, "cap_seconds": 0.5, "attempts": 5}


class Bench:
    """Simulator and feed handlers as processes of their own, on topics of their own."""

    def __init__(self, stack: Runtime, home: Path, free_port: Callable[[], int]) -> None:
        self.home, self.free_port = home, free_port
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ws_port, control_port = free_port(), free_port()
        platform = yaml.safe_load(REGISTRY.read_text())
        for name, exchange in platform["exchanges"].items():
            exchange["topic"] = f"test.{uuid.uuid4().hex[:8]}.{name}"
            exchange["feed"] |= {"reconnect": QUICK}
        self._registry_file = home / "platform.yaml"
        self._registry_file.write_text(yaml.safe_dump(platform))
        self.exchanges = parse_platform(self._registry_file).exchanges
        urls = {"binance": f"ws://127.0.0.1:{self._ws_port}", "kraken": f"ws://127.0.0.1:{self._ws_port}/v2"}
        self.runtime = stack.model_copy(
            update={"home": home, "registry": self._registry_file, "feed_urls": urls, "exchange_simulator": f"http://127.0.0.1:{control_port}"}
        )
        self._control_port = control_port
        _create(stack, self.exchanges)

    def write_runtime(self, **changes: Any) -> None:
        (self.home / "runtime.json").write_text(self.runtime.model_copy(update=changes).model_dump_json())

    def start(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(TREE / "include"),
            "K2_RUNTIME": str(self.home / "runtime.json"),
        }
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", *argv], env=environment, stdout=log, stderr=log, cwd=TREE)
        self.processes[name] = process
        return process

    def simulator(self, *options: str) -> None:
        self.start("simulator", "k2.feeds.simulator", "--ws-port", str(self._ws_port), "--control-port", str(self._control_port), *options)
        _until(lambda: self.state() != {})

    def feed(self, exchange: str) -> int:
        """Start a feed handler and return its metrics port."""
        port = self.free_port()
        self.start(exchange, "k2.feeds.main", "--exchange", exchange, "--metrics-port", str(port))
        return port

    def state(self) -> dict[str, Any]:
        try:
            return httpx.get(f"{self.runtime.exchange_simulator}/state", trust_env=False).json()["exchanges"]
        except httpx.TransportError:
            return {}

    def post(self, path: str, **body: Any) -> None:
        httpx.post(f"{self.runtime.exchange_simulator}{path}", json=body, trust_env=False).raise_for_status()

    def stop(self, name: str) -> int:
        process = self.processes[name]
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()

    def audit(self, exchange: str) -> Audit:
        return audit_exchange(self.runtime, exchange, self.exchanges[exchange])

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def _create_topics(kafka: str, *topics: str) -> None:
    client = AdminClient({"bootstrap.servers": kafka})
    for created in client.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1) for topic in topics]).values():
        created.result(20)


def _create(stack: Runtime, exchanges: dict[str, Exchange]) -> None:
    _create_topics(stack.kafka, *(exchange.topic for exchange in exchanges.values()))
    for exchange in exchanges.values():
        body = {"schema": exchange.avro_schema(), "schemaType": "AVRO"}
        httpx.post(f"{stack.schema_registry}/subjects/{exchange.subject}/versions", json=body, timeout=20, trust_env=False).raise_for_status()


def _until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def _metric(port: int, name: str) -> float:
    try:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    except httpx.TransportError:
        return -1.0
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture
def bench(base_stack: Runtime, tmp_path: Path, lab: Any) -> Iterator[Bench]:
    bench = Bench(base_stack, tmp_path, lab.free_port)
    bench.write_runtime()
    yield bench
    bench.close()


def test_every_trade_is_in_kafka_once(bench: Bench) -> None:
    """Both feeds are stopped while trades flow: the topics hold every trade once with its content, and the metrics say the same."""
    bench.simulator("--rate", "400")
    ports = {exchange: bench.feed(exchange) for exchange in ("binance", "kraken")}
    for port in ports.values():
        _until(lambda port=port: _metric(port, "k2_kafka_messages_produced_total") > 200)
    for exchange, port in ports.items():
        _until(lambda port=port, exchange=exchange: _metric(port, f"k2_{exchange}_messages_received_total") > 100)
        assert _metric(port, f"k2_{exchange}_connection_status") == 1
        assert _metric(port, f"k2_{exchange}_reconnects_total") == 0
        assert time.time() - _metric(port, f"k2_{exchange}_last_message_timestamp_seconds") < 5
        assert _metric(port, "k2_kafka_produce_errors_total") == 0
    assert [bench.stop(exchange) for exchange in ports] == [FeedExit.STOPPED, FeedExit.STOPPED], bench.log("binance")
    bench.post("/pause")
    for exchange in ports:
        result = bench.audit(exchange)
        assert result.whole, result
        assert (result.repeated, result.missing) == (0, 0)
        assert result.expected > 200


def test_killed_feed_leaves_gaps_and_nothing_else(bench: Bench) -> None:
    """A feed killed with -9 and started again misses what came in between; the audit lists it and finds nothing doubled or changed."""
    bench.simulator("--rate", "kraken=200")
    port = bench.feed("kraken")
    _until(lambda: _metric(port, "k2_kafka_messages_produced_total") > 100)
    bench.processes["kraken"].kill()
    port = bench.feed("kraken")
    _until(lambda: _metric(port, "k2_kafka_messages_produced_total") > 100)
    assert bench.stop("kraken") == 0
    bench.post("/pause")
    result = bench.audit("kraken")
    assert result.missing == sum(gap.trades for gap in result.gaps) > 0
    assert result.repeated == result.changed_count == result.unexpected_count == 0
    assert all(gap.last_id - gap.first_id + 1 == gap.trades for gap in result.gaps)


def test_recordings_are_whole_in_kafka(bench: Bench, recordings_folder: Path) -> None:
    """Every trade of every recorded message is in Kafka once: 19,904 of Binance and 2,700 of Kraken."""
    bench.write_runtime(feed_symbols={"binance": ("BTCUSDT",), "kraken": ("BTC/USD", "DASH/EUR", "ALGO/BTC")})
    bench.simulator("--replay", str(recordings_folder), "--speed", "1000")
    expected = {"binance": 19_904, "kraken": 2_700}
    for port, trades in [(bench.feed(exchange), trades) for exchange, trades in expected.items()]:
        _until(lambda port=port, trades=trades: _metric(port, "k2_kafka_messages_produced_total") >= trades)
    assert {name: exchange["market"] for name, exchange in bench.state().items()} == dict.fromkeys(expected, "finished")
    assert [bench.stop(exchange) for exchange in ("binance", "kraken")] == [0, 0]
    results = [bench.audit(exchange) for exchange in ("binance", "kraken")]
    assert [(r.expected, r.found, r.whole, r.repeated) for r in results] == [(19_904, 19_904, True, 0), (2_700, 2_700, True, 0)]


def test_gives_up_with_its_code(bench: Bench) -> None:
    """With no exchange at the address the process ends with 75 and says why."""
    process = bench.start("kraken", "k2.feeds.main", "--exchange", "kraken", "--metrics-port", str(bench.free_port()))
    assert process.wait(120) == FeedExit.GAVE_UP
    assert "giving up: 5 connections in a row delivered no trade" in bench.log("kraken")


def test_unknown_exchange_is_a_config_error(bench: Bench) -> None:
    """An exchange that the registry does not have ends with 78 and the names that it has."""
    process = bench.start("odd", "k2.feeds.main", "--exchange", "bitmex", "--metrics-port", "0")
    assert process.wait(120) == FeedExit.CONFIG
    assert "'bitmex' is not in platform.yaml: use one of binance, kraken" in bench.log("odd")


RECORD = {
    "event_type": "trade",
    "event_time_ms": 1,
    "symbol": "BTCUSDT",
    "trade_id": 1,
    "price": "1",
    "quantity": "1",
    "trade_time_ms": 1,
    "is_buyer_maker": True,
    "is_best_match": None,
    "ingestion_timestamp": 1,
}


def test_a_full_queue_waits_and_is_counted(bench: Bench) -> None:
    """While Kafka is away, records wait and then the reader does; what never got there is the result of closing."""

    async def scene() -> int:
        exchange = bench.exchanges["binance"]
        metrics = FeedMetrics("binance", exchange.topic)
        sink = KafkaSink(exchange, f"127.0.0.1:{bench.free_port()}", bench.runtime.schema_registry, metrics)
        for _ in range(QUEUE_RECORDS):
            await sink.send("BTCUSDT", RECORD)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sink.send("BTCUSDT", RECORD), 0.5)
        labels = {"exchange": "binance", "topic": exchange.topic}
        assert metrics.registry.get_sample_value("k2_kafka_backpressure_waits_total", labels) > 0
        return await sink.close(0.5)

    assert asyncio.run(scene()) == QUEUE_RECORDS


@pytest.mark.parametrize(
    ("missing", "words"), [("kafka", "does not answer"), ("topic", "does not exist"), ("schema", "does not hold"), ("schema_registry", "schema registry")]
)
def test_what_is_missing_is_named(bench: Bench, missing: str, words: str) -> None:
    """Without broker, topic, registry or schema the sink is unavailable, and says which."""
    exchange = bench.exchanges["binance"]
    nowhere = f"127.0.0.1:{bench.free_port()}"
    kafka = nowhere if missing == "kafka" else bench.runtime.kafka
    registry = f"http://{nowhere}" if missing == "schema_registry" else bench.runtime.schema_registry
    if missing == "topic":
        exchange = exchange.model_copy(update={"topic": "test.nowhere"})
    if missing == "schema":
        topic = f"test.{uuid.uuid4().hex[:8]}.unregistered"
        _create_topics(kafka, topic)
        exchange = exchange.model_copy(update={"topic": topic})

    async def scene() -> None:
        sink = KafkaSink(exchange, kafka, registry, FeedMetrics("binance", exchange.topic))
        try:
            await sink.prepare(0, asyncio.Event())
        finally:
            await sink.close(0)

    with pytest.raises(SinkUnavailable, match=words):
        asyncio.run(scene())


def test_values_are_confluent_framed(bench: Bench) -> None:
    """Each value is 0, the schema's id in four bytes, and Avro that the committed schema reads."""
    from k2.feeds.received import decoder
    from k2.reconcile.read import read_topic

    exchange = bench.exchanges["binance"]

    async def scene() -> None:
        sink = KafkaSink(exchange, bench.runtime.kafka, bench.runtime.schema_registry, FeedMetrics("binance", exchange.topic))
        await sink.prepare(20, asyncio.Event())
        await sink.send("BTCUSDT", RECORD)
        assert await sink.close(20) == 0

    asyncio.run(scene())
    ((_, key, value),) = read_topic(bench.runtime, exchange.topic)
    versions = httpx.get(f"{bench.runtime.schema_registry}/subjects/{exchange.subject}/versions/latest", trust_env=False).json()
    assert (key, value[:5]) == (b"BTCUSDT", b"\0" + versions["id"].to_bytes(4, "big"))
    assert decoder(bench.runtime, json.dumps(json.loads(exchange.avro_schema())))(value) == RECORD
