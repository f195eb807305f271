"""Cuts one client off from Kafka while all others reach it: `python -m k2.chaos.proxy`, a service of the stack.

The broker advertises one more listener for each stream that is to be cut off alone, at an address where this proxy listens.
Its control endpoint: POST /mode {route, mode, delay_seconds}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Path

CHUNK = 64 * 1024


class Mode(StrEnum):
    """What becomes of a route's connections, those that are open included."""

    PASS = "pass"
    HOLE = "hole"
    """Accepted, kept open, and nothing comes through in either direction, as when packets vanish. What was sent arrives once it ends."""
    RESET = "reset"
    """Every connection is reset."""
    SLOW = "slow"
    """Each piece of data waits for `delay_seconds`."""


@dataclass
class Route:
    """One port here and the port of the broker behind it. For one event loop."""

    name: str
    listen: int
    to: int
    mode: Mode = Mode.PASS
    delay_seconds: float = 0.0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @classmethod
    def of(cls, text: str) -> Route:
        """From NAME:PORT:PORT. Raises ValueError."""
        name, listen, to = text.split(":")
        return cls(name, int(listen), int(to))

    @property
    def connections(self) -> int:
        return len(self._open) // 2

    def set(self, mode: Mode, delay_seconds: float = 0.0) -> None:
        self.mode, self.delay_seconds = mode, delay_seconds
        self._changed.set()
        self._changed = asyncio.Event()
        if mode is Mode.RESET:
            for writer in list(self._open):
                _reset(writer)

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", self.listen)

    async def _passable(self) -> None:
        """Returns when data may go on."""
        while self.mode is Mode.HOLE:
            await self._changed.wait()
        if self.mode is Mode.SLOW:
            await asyncio.sleep(self.delay_seconds)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        behind: asyncio.StreamWriter | None = None
        try:
            await self._passable()
            if self.mode is Mode.RESET:
                _reset(writer)
                return
            answers, behind = await asyncio.open_connection("127.0.0.1", self.to)
            self._open.add(behind)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, behind))
                both.create_task(self._carry(answers, writer))
        except* OSError:
            pass  # one side has gone: the other one is told by the end of its connection
        finally:
            for end in filter(None, (writer, behind)):
                self._open.discard(end)
                end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._passable()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the other side has closed")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once and let the peer see an error instead of an end."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def application(routes: Mapping[str, Route]) -> Starlette:
    async def mode(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            routes[body["route"]].set(Mode(body["mode"]), float(body.get("delay_seconds", 0.0)))
        except (KeyError, TypeError, ValueError) as error:
            known = f"route is one of {', '.join(routes)}, mode one of {', '.join(Mode)}"
            return JSONResponse({"error": f"{type(error).__name__}: {error}: {known}"}, status_code=400)
        return JSONResponse({"done": True})

    return Starlette(routes=[Path("/mode", mode, methods=["POST"])])


async def run(routes: Mapping[str, Route], control_port: int) -> None:
    """Until SIGTERM."""
    servers = [await route.serve() for route in routes.values()]
    config = uvicorn.Config(application(routes), host="127.0.0.1", port=control_port, log_level="warning", access_log=False)
    await uvicorn.Server(config).serve()
    for server in servers:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Carry connections to Kafka, or hold them up. Started by the stack's supervisor.")
    parser.add_argument("--control-port", type=int, required=True)
    parser.add_argument("--route", type=Route.of, action="append", required=True, metavar="NAME:PORT:PORT", help="a name, the port here, the port behind it")
    arguments = parser.parse_args()
    asyncio.run(run({route.name: route for route in arguments.route}, arguments.control_port))


if __name__ == "__main__":
    main()
