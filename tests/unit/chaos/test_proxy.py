"""The proxy between one driver and the broker: it carries, holds up, resets and slows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from k2.chaos.proxy import Mode, Route, application


@asynccontextmanager
async def echoing() -> AsyncIterator[Route]:
    """A route to a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            writer.write(data)
        writer.close()

    behind = await asyncio.start_server(echo, "127.0.0.1", 0)
    route = Route("r", 0, behind.sockets[0].getsockname()[1])
    front = await route.serve()
    route.listen = front.sockets[0].getsockname()[1]
    try:
        yield route
    finally:
        front.close()
        behind.close()


async def connect(route: Route) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", route.listen)


def test_data_passes_both_ways_and_the_end_too() -> None:
    """What is sent comes back, and closing closes the other side."""

    async def scenario() -> None:
        async with echoing() as route:
            reader, writer = await connect(route)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello" and route.connections == 1
            writer.close()
            async with asyncio.timeout(5):
                while route.connections:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


@pytest.mark.parametrize("new", [True, False])
def test_a_hole_keeps_connections_open_and_answers_nothing(new: bool) -> None:
    """Open connections and new ones alike; what was sent arrives when the hole is gone."""

    async def scenario() -> None:
        async with echoing() as route:
            if new:
                route.set(Mode.HOLE)
            reader, writer = await connect(route)
            if not new:
                writer.write(b"-")
                assert await reader.readexactly(1) == b"-"
                route.set(Mode.HOLE)
            writer.write(b"hello")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.3)
            route.set(Mode.PASS)
            assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("new", [True, False])
def test_a_reset_is_an_error_to_the_client(new: bool) -> None:
    """It is not the orderly end of a connection."""

    async def scenario() -> None:
        async with echoing() as route:
            if new:
                route.set(Mode.RESET)
            reader, _ = await connect(route)
            if not new:
                await asyncio.sleep(0.05)
                route.set(Mode.RESET)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(1), 5)

    asyncio.run(scenario())


def test_slow_delays_each_way() -> None:
    """A round trip takes two delays."""

    async def scenario() -> None:
        async with echoing() as route:
            reader, writer = await connect(route)
            writer.write(b"-")
            await reader.readexactly(1)
            route.set(Mode.SLOW, 0.1)
            began = time.monotonic()
            writer.write(b"-")
            await reader.readexactly(1)
            assert time.monotonic() - began >= 0.2
            writer.close()

    asyncio.run(scenario())


def test_control_sets_the_mode_and_refuses_what_it_does_not_know() -> None:
    """The answer names what would have been right."""

    async def scenario() -> None:
        route = Route("bronze", 1, 2)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application({"bronze": route})), base_url="http://proxy") as client:
            assert (await client.post("/mode", json={"route": "bronze", "mode": "hole"})).status_code == 200
            for body in ({"route": "silver", "mode": "hole"}, {"route": "bronze", "mode": "gone"}, {}):
                refused = await client.post("/mode", json=body)
                assert refused.status_code == 400 and "bronze" in refused.json()["error"]
        assert route.mode is Mode.HOLE

    asyncio.run(scenario())
