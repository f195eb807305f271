"""A feed handler: `python -m k2.feeds.main --exchange NAME --metrics-port P`.

The address is `feed_urls` of runtime.json where that names the exchange, else `feed.url` of platform.yaml: the same
code runs against the simulator and against the real exchange.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from enum import IntEnum

from k2.feeds.backoff import Backoff, GaveUp
from k2.feeds.client import FeedClient
from k2.feeds.metrics import FeedMetrics
from k2.feeds.sink import KafkaSink, SinkFailed, SinkUnavailable
from k2.registry.platform import ConfigError, Exchange, Feed
from k2.registry.runtime import Runtime, RuntimeMissing, load_runtime

log = logging.getLogger("k2.feeds")

FLUSH_SECONDS = 6.0
"""With the close of the connection within the ten seconds that the stack grants a process to stop."""
PREPARE_SECONDS = 60.0


class FeedExit(IntEnum):
    """How a feed handler leaves (the numbers of sysexits.h)."""

    STOPPED = 0
    """It was asked to stop, and Kafka has acknowledged every record."""
    UNAVAILABLE = 69
    """Kafka, its topic, the schema registry or the schema was not there in time."""
    PRODUCER_FAILED = 70
    """The producer cannot go on."""
    NOT_FLUSHED = 74
    """Records that were read are not in Kafka; the log says how many."""
    GAVE_UP = 75
    """The exchange could not be reached, or sent nothing, `reconnect.attempts` times in a row."""
    CONFIG = 78
    """An argument, the registry or the metrics port is wrong."""


def addresses(name: str, feed: Feed, runtime: Runtime) -> tuple[str, str | None]:
    """The address to connect to and the one to fail over to. An address of the runtime has no failover."""
    if name in runtime.feed_urls:
        return runtime.feed_urls[name], None
    return feed.url, feed.failover_url


async def run(name: str, exchange: Exchange, runtime: Runtime, metrics_port: int) -> FeedExit:
    """Run one feed handler until SIGTERM, SIGINT or an end of its own."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = FeedMetrics(name, exchange.topic)
    try:
        metrics.serve(metrics_port)
    except OSError as error:
        raise ConfigError(f"--metrics-port {metrics_port}: {error}: choose a free port") from error
    sink = KafkaSink(exchange, runtime.kafka, runtime.schema_registry, metrics)
    feed = exchange.feed.model_copy(update={"symbols": runtime.feed_symbols.get(name, exchange.feed.symbols)})
    url, failover_url = addresses(name, feed, runtime)
    client = FeedClient(
        feed,
        url=url,
        failover_url=failover_url,
        schema=json.loads(exchange.avro_schema()),
        sink=sink,
        metrics=metrics,
        backoff=Backoff(feed.reconnect),
    )
    code = await _until_end(client, sink, stop)
    unflushed = await sink.close(FLUSH_SECONDS)
    if unflushed:
        log.error("%d records that were read are not in Kafka", unflushed)
        return code or FeedExit.NOT_FLUSHED
    log.info("stopped; Kafka has acknowledged every record")
    return code


async def _work(client: FeedClient, sink: KafkaSink, stop: asyncio.Event) -> FeedExit:
    try:
        await sink.prepare(PREPARE_SECONDS, stop)
        await client.run(stop)
    except SinkUnavailable as error:
        log.error("%s", error)
        return FeedExit.UNAVAILABLE
    except SinkFailed as error:
        log.error("the producer failed: %s", error)
        return FeedExit.PRODUCER_FAILED
    except GaveUp as error:
        log.error("giving up: %s", error)
        return FeedExit.GAVE_UP
    return FeedExit.STOPPED


async def _until_end(client: FeedClient, sink: KafkaSink, stop: asyncio.Event) -> FeedExit:
    """The work's own end, or the producer's failure while the work waits for a frame."""
    work = asyncio.create_task(_work(client, sink, stop))
    await asyncio.wait({work, sink.failure}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        return work.result()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    log.error("the producer failed: %s", sink.failure.result())
    return FeedExit.PRODUCER_FAILED


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m k2.feeds.main", description="Bring one exchange's trades to Kafka.")
    parser.add_argument("--exchange", required=True, help="its name in platform.yaml")
    parser.add_argument("--metrics-port", required=True, type=int, help="where Prometheus reads, on 127.0.0.1")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        runtime = load_runtime()
        exchanges = runtime.platform.exchanges
        if options.exchange not in exchanges:
            raise ConfigError(f"--exchange {options.exchange!r} is not in platform.yaml: use one of {', '.join(exchanges)}")
        return asyncio.run(run(options.exchange, exchanges[options.exchange], runtime, options.metrics_port))
    except (ConfigError, RuntimeMissing) as error:
        log.error("%s", error)
        return FeedExit.CONFIG


if __name__ == "__main__":
    sys.exit(main())
