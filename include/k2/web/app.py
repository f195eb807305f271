"""The web application that Airflow's API server mounts. Every address in it needs a login."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from k2.registry.runtime import Runtime, load_runtime
from k2.state.database import StateUnavailable
from k2.web import board, render, timeline

log = logging.getLogger(__name__)

OWN_ANSWER = "X-K2-Page"
"""Marks a page of this application, whatever its status: the script in an open page puts no other in its place."""


def create(login: Callable[..., Any], runtime: Callable[[], Runtime] = load_runtime) -> FastAPI:
    """The application. `login` is a dependency that lets a request pass or raises HTTPException 401 or 403.

    The endpoints are plain functions, so each runs in a thread and none holds the server's event loop.
    """
    app = FastAPI(title="K2 streams", dependencies=[Depends(login)], docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def streams(request: Request) -> Response:
        now = datetime.now(UTC)
        try:
            return _page(request, "streams.html", board=board.read(runtime(), now), now=now)
        except (StateUnavailable, psycopg.Error) as error:
            return _cannot_know(request, runtime(), error, now)

    @app.get("/streams/{name}")
    def stream(request: Request, name: str) -> Response:
        now = datetime.now(UTC)
        _declared(runtime(), name)
        try:
            whole, found = board.read_stream(runtime(), name, now)
        except (StateUnavailable, psycopg.Error) as error:
            return _cannot_know(request, runtime(), error, now)
        bars = timeline.bars(found.row.entries[-board.SHOWN :][::-1], now)
        return _page(request, "stream.html", board=whole, found=found, row=found.row, bars=bars, width=timeline.WIDTH, now=now)

    @app.get("/runbook")
    def runbook(request: Request) -> Response:
        text = (runtime().tree / "docs" / "runbook.md").read_text()
        return _page(request, "runbook.html", document=render.markdown(text), now=datetime.now(UTC))

    @app.get("/api/streams")
    def api_streams() -> Response:
        return _json(lambda: board.read(runtime(), datetime.now(UTC)).as_dict())

    @app.get("/api/streams/{name}")
    def api_stream(name: str) -> Response:
        _declared(runtime(), name)
        return _json(lambda: board.read_stream(runtime(), name, datetime.now(UTC))[1].as_dict())

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> Response:
        if "/api/" in request.url.path or "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)
        return _page(request, "refused.html", status=error.status_code, error=str(error.detail), now=datetime.now(UTC))

    return app


def _declared(runtime: Runtime, name: str) -> None:
    if name not in runtime.platform.streams:
        raise HTTPException(404, f"stream {name[:80]!r} is not declared: use one of {', '.join(runtime.platform.streams)}")


def _page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    nonce = secrets.token_urlsafe(16)
    root, airflow = (request.scope.get(name, "").rstrip("/") for name in ("root_path", "app_root_path"))
    html = render.page(template, nonce=nonce, root=root, airflow=airflow, status=status, **values)
    headers = {
        OWN_ANSWER: "1",
        "Content-Security-Policy": render.csp(nonce),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
    }
    return HTMLResponse(html, status, headers=headers)


def _cannot_know(request: Request, runtime: Runtime, error: Exception, now: datetime) -> Response:
    log.warning("the Streams page cannot read the database: %s", error)
    return _page(request, "unknown.html", status=503, names=list(runtime.platform.streams), error=_sentence(error), now=now)


def _json(answer: Callable[[], dict[str, Any]]) -> Response:
    try:
        return JSONResponse(answer(), headers={"Cache-Control": "no-store"})
    except (StateUnavailable, psycopg.Error) as error:
        return JSONResponse({"at": datetime.now(UTC).isoformat(), "tone": "unknown", "unknown": _sentence(error), "streams": None}, 503)


def _sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
