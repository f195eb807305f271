"""The host agent: parent of the drivers, reached over a private socket. Run it with `python -m k2.launchers.agent`.

Drivers outlive it: ended in any way and started again, it adopts what runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from k2.launchers.deadman import DeadManSwitch
from k2.launchers.fleet import Fleet, StaleFence, UnknownDriver
from k2.launchers.shadows import ShadowRefused, Shadows
from k2.registry.observed import Driver
from k2.registry.runtime import Runtime, load_runtime
from k2.registry.shadow import LIMIT_SECONDS

MAX_WAIT_SECONDS = 30.0

DRIVER = TypeAdapter(Driver)
DRIVERS = TypeAdapter(dict[str, list[Driver]])


class AgentRuns(RuntimeError):
    """Another agent serves this home."""


def application(fleet: Fleet, switch: DeadManSwitch | None = None) -> Starlette:
    """The agent's HTTP interface over a fleet, with the dead man's switch beside it."""
    shadows = Shadows(fleet.runtime)

    def deadline(body: dict[str, Any]) -> float:
        return _deadline(body, fleet.runtime.platform.restart.drain_timeout_seconds)

    async def drivers(request: Request) -> Response:
        version, wait = request.query_params.get("version"), request.query_params.get("wait", "0")
        known = None if version is None else _number(version, int, "version")
        if known is not None:
            await fleet.changed(known, min(_number(wait, float, "wait"), MAX_WAIT_SECONDS))
        fleet.notice()
        if known == fleet.version:
            return JSONResponse({"version": fleet.version})
        return JSONResponse({"version": fleet.version, "drivers": DRIVERS.dump_python(fleet.drivers(), mode="json")})

    async def start(request: Request) -> Response:
        body = await _body(request)
        stream, fence, spare = body.get("stream"), body.get("fence"), body.get("spare", False)
        if not isinstance(stream, str) or type(fence) is not int or fence < 1 or type(spare) is not bool:
            raise HTTPException(400, f"the body must be {{stream: name, fence: number from 1, spare: true or false}}, not {body}")
        return JSONResponse(DRIVER.dump_python(fleet.start(stream, fence, spare), mode="json"))

    async def stop(request: Request) -> Response:
        ended = await fleet.stop(request.path_params["stream"], request.path_params["fence"], deadline(await _body(request)))
        return JSONResponse(asdict(ended))

    async def kill(request: Request) -> Response:
        return JSONResponse({"killed": await fleet.kill(request.path_params["stream"], request.path_params["fence"])})

    async def dump(request: Request) -> Response:
        return JSONResponse({"path": await fleet.dump(request.path_params["stream"], request.path_params["fence"])})

    async def shadow(request: Request) -> Response:
        body = await _body(request)
        stream, query = body.get("stream"), body.get("query_id")
        if stream not in fleet.runtime.platform.streams or not isinstance(query, str) or not query:
            raise HTTPException(400, f"the body must be {{stream: a declared stream, query_id: the id of its query}}, not {body}")
        found = await shadows.run(stream, query, min(_deadline(body, LIMIT_SECONDS), LIMIT_SECONDS))
        return JSONResponse(asdict(found))

    async def stop_all(request: Request) -> Response:
        ended = await fleet.stop_all(deadline(await _body(request)))
        return JSONResponse({tag: asdict(end) for tag, end in ended.items()})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        fleet.adopt()
        shutil.rmtree(shadows.folder, ignore_errors=True)  # of an agent that was killed
        chores = [asyncio.create_task(fleet.measure()), asyncio.create_task(fleet.spares.keep())]
        if switch is not None:
            chores.append(asyncio.create_task(switch.watch()))
        yield
        for chore in chores:
            chore.cancel()
        fleet.spares.close()
        shadows.close()

    async def refused(_: Request, error: Exception) -> Response:
        status = {UnknownDriver: 404, StaleFence: 409, ShadowRefused: 409}.get(type(error)) or getattr(error, "status_code", 500)
        return JSONResponse({"error": str(getattr(error, "detail", error))}, status)

    return Starlette(
        routes=[
            Route("/drivers", drivers, methods=["GET"]),
            Route("/drivers", start, methods=["POST"]),
            Route("/drivers/{stream}/{fence:int}/stop", stop, methods=["POST"]),
            Route("/drivers/{stream}/{fence:int}/kill", kill, methods=["POST"]),
            Route("/drivers/{stream}/{fence:int}/dump", dump, methods=["POST"]),
            Route("/shadows", shadow, methods=["POST"]),
            Route("/stop-all", stop_all, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys((UnknownDriver, StaleFence, ShadowRefused, HTTPException, OSError), refused),
        lifespan=lifespan,
    )


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return body


def _deadline(body: dict[str, Any], default: float) -> float:
    value = body.get("deadline_seconds", default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise HTTPException(400, f"deadline_seconds is {value!r}: give a number of seconds from 0")
    return float(value)


def _number(text: str, kind: type[int] | type[float], name: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise HTTPException(400, f"{name} is {text!r}: give a number") from None


def listen(path: Path) -> socket.socket:
    """A listening unix socket that only this user may open, in a folder that only this user may enter.

    Raises AgentRuns when another agent holds it. The lock file beside it ends with its holder, however that ends.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AgentRuns(f"another host agent serves {path}") from None
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {path} ({len(str(path))} characters; a socket's path may have 107): {error.strerror}") from error
    finally:
        os.umask(before)
    return listener


async def serve(runtime: Runtime) -> None:
    """Serve until SIGTERM or SIGINT; the drivers live on."""
    listener = listen(runtime.agent_socket)
    config = uvicorn.Config(application(Fleet(runtime), DeadManSwitch(runtime)), lifespan="on", access_log=False, log_config=None, timeout_graceful_shutdown=2)
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(load_runtime()))
    except AgentRuns as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
