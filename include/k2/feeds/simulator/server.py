"""The simulator's listeners: one for the websockets of all protocols, one for control."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from http import HTTPStatus

import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from k2.feeds.simulator.dialect import Dialect
from k2.feeds.simulator.hub import Hub
from k2.feeds.simulator.market import Market
from k2.feeds.simulator.truth import Truth

HOST = "127.0.0.1"
SAVE_SECONDS = 5.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the simulator, which has more to end than this server."""
        yield


class Simulator:
    """All exchanges of one process. `dialects` is by path, as in /v2."""

    def __init__(self, markets: Mapping[str, Market], truths: Mapping[str, Truth], dialects: Mapping[str, Dialect], control: Starlette) -> None:
        self._markets, self._truths, self._dialects, self._control = markets, truths, dialects, control

    def _hub(self, dialect: Dialect) -> Hub:
        return self._markets[dialect.exchange].hub

    def _dialect(self, path: str) -> Dialect | None:
        return self._dialects.get(path.partition("?")[0].rstrip("/") or "/")

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        dialect = self._dialect(request.path)
        if dialect is None:
            return connection.respond(HTTPStatus.NOT_FOUND, f"no exchange speaks at {request.path}: use {', '.join(self._dialects)}\n")
        if self._hub(dialect).active("refuse"):
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "refused on demand\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        dialect = self._dialect(connection.request.path)
        await self._hub(dialect).serve(connection, dialect)

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            for truth in self._truths.values():
                truth.save()

    async def run(self, ws_port: int, control_port: int, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises OSError when a port is taken, and whatever ends a market."""
        server = _Server(uvicorn.Config(self._control, host=HOST, port=control_port, log_level="warning", access_log=False, lifespan="off"))
        for market in self._markets.values():
            market.hub.event("started")
        async with serve(self._handle, HOST, ws_port, process_request=self._process_request, compression=None, close_timeout=1):
            work = [asyncio.create_task(market.run()) for market in self._markets.values()]
            work += [asyncio.create_task(market.hub.beat()) for market in self._markets.values()]
            work += [asyncio.create_task(self._save()), asyncio.create_task(server.serve())]
            stopping = asyncio.create_task(stop.wait())
            try:
                done, _ = await asyncio.wait({stopping, *work}, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopping}:
                    task.result()
                    raise RuntimeError(f"{task.get_name()} ended by itself")
            finally:
                server.should_exit = True
                for task in [*work[:-1], stopping]:
                    task.cancel()
                await asyncio.gather(*work, stopping, return_exceptions=True)
        for name, market in self._markets.items():
            market.hub.event("stopped")
            self._truths[name].close()
