"""One exchange's websocket connections: connect, listen, notice silence, rotate, connect again, give up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastavro.schema import parse_schema
from fastavro.validation import validate
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from k2.feeds.backoff import Backoff
from k2.feeds.bounded_log import BoundedLog
from k2.feeds.metrics import FeedMetrics
from k2.feeds.protocol import MalformedFrame
from k2.feeds.protocols import PROTOCOLS
from k2.feeds.trades import to_kraken_v2
from k2.registry.platform import Feed

log = logging.getLogger(__name__)

STOPPING = 1001
"""Close code of a feed that was asked to stop: it will not be back by itself."""
STALE = 4000
"""Close code of a feed that heard nothing for too long."""
ROTATED = 1000
"""Close code of a connection that a younger one has replaced."""

MAX_FRAME_BYTES = 8 * 1024 * 1024
ROTATION_SECONDS = 30.0
"""How long a new connection may take to deliver before the old one is let go all the same."""
ROTATION_RETRY_SECONDS = 60.0
KNOWN_EVENTS = frozenset({"heartbeat", "status", "systemStatus", "subscriptionStatus", "subscribe", "pong", "result", "error"})
"""Those that the metric names; any other name counts as `other`, so that an exchange cannot create metrics at will."""


class Sink(Protocol):
    """Where the records go."""

    async def send(self, key: str, record: dict[str, Any]) -> None: ...


@dataclass
class Connection:
    """One connection's life. Times are of time.monotonic()."""

    url: str
    opened: float
    heard: float
    task: asyncio.Task[str] = field(init=False)
    websocket: ClientConnection | None = None
    closing: asyncio.Task[None] | None = None
    stale: bool = False
    busy: bool = False
    """A frame is being handled: silence is then ours, not the exchange's."""
    refused: int = 0
    delivered: asyncio.Event = field(default_factory=asyncio.Event)


class FeedClient:
    """Listens to one exchange and hands every trade to the sink, in the order in which they came."""

    def __init__(
        self, feed: Feed, *, url: str, failover_url: str | None, schema: Mapping[str, Any], sink: Sink, metrics: FeedMetrics, backoff: Backoff
    ) -> None:
        self._feed, self._sink, self._metrics, self._backoff = feed, sink, metrics, backoff
        self._protocol = PROTOCOLS[feed.protocol]
        self._schema = parse_schema(dict(schema))
        self._urls = [url] + ([failover_url] if failover_url else [])
        self._symbols = frozenset(to_kraken_v2(symbol) for symbol in feed.symbols)
        self._notes = BoundedLog(log)
        self._opened = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop` is set; every frame that had arrived by then is in the sink. Raises GaveUp and what the sink raises."""
        if stop.is_set():
            return
        stopping = asyncio.create_task(stop.wait())
        connection = self._open()
        try:
            while True:
                left = connection.opened + self._feed.rotate_hours * 3600 - time.monotonic()
                await asyncio.wait({stopping, connection.task}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    await self._end(connection, STOPPING)
                    return
                if connection.task.done():
                    wait = self._ended(connection)
                    await asyncio.wait({stopping}, timeout=wait)
                    if stop.is_set():
                        return
                    connection = self._open()
                else:
                    connection = await self._rotate(connection, stopping)
        finally:
            stopping.cancel()
            if not connection.task.done():
                connection.task.cancel()
                await asyncio.gather(connection.task, return_exceptions=True)
            self._metrics.connected.set(0)

    def _open(self) -> Connection:
        now = time.monotonic()
        connection = Connection(self._urls[0], opened=now, heard=now)
        if self._opened:
            self._metrics.reconnects.inc()
        self._opened += 1
        connection.task = asyncio.create_task(self._listen(connection), name=f"listen {connection.url}")
        return connection

    def _ended(self, connection: Connection) -> float:
        """Seconds until the next connection; raises GaveUp, and what the listener raised if that was not the network."""
        reason = connection.task.result()
        delivered, lasted = connection.delivered.is_set(), time.monotonic() - connection.opened
        self._metrics.connected.set(0)
        log.warning("connection to %s ended after %.1f s: %s", connection.url, lasted, reason)
        wait = self._backoff.after(delivered=delivered, lasted_seconds=lasted)
        if not delivered:
            self._urls.append(self._urls.pop(0))
        log.info("connecting to %s in %.1f s", self._urls[0], wait)
        return wait

    async def _rotate(self, old: Connection, stopping: asyncio.Task[Any]) -> Connection:
        """Replace a connection by a younger one; they overlap, so that nothing is missed (what both bring is a repeat)."""
        new = self._open()
        delivering = asyncio.create_task(new.delivered.wait())
        await asyncio.wait({delivering, new.task, stopping}, timeout=ROTATION_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        delivering.cancel()
        if new.task.done():
            log.warning("rotation failed, the old connection stays: %s", new.task.result())
            old.opened = time.monotonic() - self._feed.rotate_hours * 3600 + ROTATION_RETRY_SECONDS
            return old
        await self._end(old, ROTATED)
        return new

    async def _end(self, connection: Connection, code: int) -> None:
        """Close, and read what the exchange sent before it saw the close."""
        if connection.websocket is None:
            connection.task.cancel()
            await asyncio.wait({connection.task})
            return
        closing = asyncio.create_task(connection.websocket.close(code))
        await asyncio.wait({connection.task})
        await closing
        connection.task.result()

    async def _listen(self, connection: Connection) -> str:
        """Read one connection to its end and say why it ended."""
        loopback = urlsplit(connection.url).hostname in ("127.0.0.1", "::1", "localhost")
        try:
            async with connect(
                self._protocol.url(connection.url, self._feed.symbols),
                proxy=None if loopback else True,
                compression=None,
                open_timeout=10,
                close_timeout=2,
                ping_interval=self._feed.ping_seconds,
                ping_timeout=self._feed.pong_timeout_seconds,
                max_size=MAX_FRAME_BYTES,
            ) as websocket:
                connection.websocket = websocket
                for text in self._protocol.hello(self._feed.symbols):
                    await websocket.send(text)
                connection.heard = time.monotonic()
                self._metrics.connected.set(1)
                log.info("connected to %s", connection.url)
                watch = asyncio.create_task(self._watch(connection))
                try:
                    while True:
                        frame = await websocket.recv(decode=False)
                        connection.busy = True
                        await self._take(connection, frame)
                        connection.busy, connection.heard = False, time.monotonic()
                except ConnectionClosed as closed:
                    return f"nothing heard for {self._feed.stale_seconds:g} s" if connection.stale else f"closed: {closed}"
                finally:
                    watch.cancel()
        except (OSError, TimeoutError, WebSocketException) as error:
            return f"{type(error).__name__}: {error}"

    async def _watch(self, connection: Connection) -> None:
        """Close a connection on which nothing is heard, heartbeats included."""
        while connection.busy or (time.monotonic() - connection.heard) < self._feed.stale_seconds:
            await asyncio.sleep(min(1.0, self._feed.stale_seconds / 4))
        connection.stale = True
        await connection.websocket.close(STALE)

    async def _take(self, connection: Connection, frame: bytes) -> None:
        received = time.time_ns() // 1000
        self._metrics.messages.inc()
        self._metrics.last_message.set(received / 1e6)
        try:
            parsed = self._protocol.parse(frame.decode(), received)
        except (MalformedFrame, UnicodeDecodeError) as problem:
            self._metrics.malformed.inc()
            self._notes.warning("malformed frame", str(problem), frame)
            return
        for problem in parsed.problems:
            self._metrics.malformed.inc()
            self._notes.warning("malformed trade", problem, frame)
        if parsed.event is not None:
            self._metrics.events.labels(event=parsed.event if parsed.event in KNOWN_EVENTS else "other").inc()
            if parsed.refused is not None:
                await self._refused(connection, parsed.refused)
        sent = 0
        for record in parsed.records:
            sent += await self._forward(record, frame)
        if sent:
            self._backoff.delivered()
            connection.delivered.set()

    async def _refused(self, connection: Connection, words: str) -> None:
        connection.refused += 1
        self._metrics.refusals.inc()
        self._notes.warning("subscription refused", "check feed.symbols in platform.yaml", words)
        if connection.refused >= len(self._feed.symbols) and not connection.delivered.is_set() and connection.closing is None:
            # Heartbeats would keep a connection alive for ever on which no trade can come.
            connection.closing = asyncio.create_task(connection.websocket.close(ROTATED, "every subscription refused"))

    async def _forward(self, record: dict[str, Any], frame: bytes) -> int:
        self._metrics.trades.inc()
        if not validate(record, self._schema, raise_errors=False):
            self._metrics.rejected.inc()
            self._notes.warning("does not fit the schema", f"{record}", frame)
            return 0
        key = record[self._protocol.key]
        if to_kraken_v2(key) not in self._symbols:
            self._metrics.unexpected.inc()
        await self._sink.send(key, record)
        return 1
