"""A simulator and a feed client in one event loop, and a sink that keeps what it is given."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from k2.feeds.audit import Audit, audit
from k2.feeds.backoff import Backoff
from k2.feeds.client import FeedClient
from k2.feeds.metrics import FeedMetrics
from k2.feeds.simulator.__main__ import arguments, build
from k2.feeds.simulator.truth import read_truth
from k2.feeds.trades import Trade, trade_of_record
from k2.registry.platform import Feed, load_platform

PATHS = {"binance": "", "kraken_v1": "/kraken", "kraken_v2": "/v2"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class KeptRecords:
    """A sink that keeps every record."""

    def __init__(self, exchange: str) -> None:
        self.records: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._exchange = exchange

    async def send(self, key: str, record: dict[str, Any]) -> None:
        await self.open.wait()
        assert key == record.get("symbol", record.get("pair"))
        self.records.append(record)

    @property
    def trades(self) -> list[Trade]:
        return [trade_of_record(self._exchange, record) for record in self.records]


class Listening:
    """A feed client at work."""

    def __init__(self, protocol: str, url: str, failover_url: str | None = None, **changes: Any) -> None:
        self.protocol = protocol
        self.exchange = protocol.partition("_")[0]
        declared = load_platform().exchanges[self.exchange]
        quick = {"first_seconds": 0.2, "cap_seconds": 0.5, "attempts": 5}
        settings = declared.feed.model_dump() | {"protocol": protocol, "stale_seconds": 30, "reconnect": quick} | changes
        feed = Feed.model_validate(settings)
        self.metrics = FeedMetrics(self.exchange, declared.topic)
        self.sink = KeptRecords(self.exchange)
        schema = json.loads(declared.avro_schema())
        self.client = FeedClient(feed, url=url, failover_url=failover_url, schema=schema, sink=self.sink, metrics=self.metrics, backoff=Backoff(feed.reconnect))
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.client.run(self.stop))

    def metric(self, name: str) -> float:
        """The value of one of the exchange's metrics, without k2_<exchange>_."""
        return self.metrics.registry.get_sample_value(f"k2_{self.exchange}_{name}")

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 10)


class Exchanges:
    """The simulator. `home` keeps its truth."""

    def __init__(self, home: Path, port: int, control: httpx.AsyncClient) -> None:
        self._home, self.port, self.control = home, port, control

    def url(self, protocol: str) -> str:
        return f"ws://127.0.0.1:{self.port}{PATHS[protocol]}"

    def listen(self, protocol: str, **changes: Any) -> Listening:
        return Listening(protocol, self.url(protocol), **changes)

    async def post(self, path: str, **body: Any) -> None:
        (await self.control.post(path, json=body)).raise_for_status()

    async def fault(self, kind: str, feed: Listening, **details: Any) -> None:
        await self.post("/fault", exchange=feed.exchange, kind=kind, **details)

    async def get(self, path: str) -> dict[str, Any]:
        return (await self.control.get(path)).raise_for_status().json()["exchanges"]

    def truth(self, exchange: str) -> list[dict[str, Any]]:
        return list(read_truth(self._home / "data" / "simulator", exchange))

    def audit(self, feed: Listening) -> Audit:
        return audit(self.truth(feed.exchange), feed.sink.trades, feed.protocol)


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait until a condition holds; fail after the given time."""
    deadline = time.monotonic() + seconds
    while True:
        held = condition()
        if await held if isinstance(held, Awaitable) else held:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def exchanges(home: Path, *options: str, rate: str = "600") -> AsyncIterator[Exchanges]:
    """A simulator on free ports with its truth under `home`."""
    port, control_port = free_port(), free_port()
    ports = ["--ws-port", str(port), "--control-port", str(control_port), "--home", str(home)]
    simulator, stop = build(arguments().parse_args([*ports, "--rate", rate, *options])), asyncio.Event()
    task = asyncio.create_task(simulator.run(port, control_port, stop))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{control_port}", trust_env=False) as control:
            running = Exchanges(home, port, control)

            async def up() -> bool:
                if task.done():
                    task.result()
                try:
                    return bool(await running.get("/state"))
                except httpx.TransportError:
                    return False

            await until(up)
            yield running
    finally:
        stop.set()
        await task


@pytest.fixture(params=["binance", "kraken_v1", "kraken_v2"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def lab() -> Any:
    """`lab.exchanges`, `lab.until` and the rest of this module, for tests that import no helper."""
    import types

    return types.SimpleNamespace(exchanges=exchanges, until=until, Listening=Listening, free_port=free_port)
