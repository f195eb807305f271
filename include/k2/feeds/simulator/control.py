"""The simulator's control endpoint.

GET /state, GET /truth/summary; POST /rate {rate, pattern, exchange}, POST /pause, POST /resume {exchange},
POST /fault {exchange, kind, ...}. Without `exchange` all are meant, and `rate` is divided as it is now.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from k2.feeds.simulator.faults import FAULT, SchemaChange
from k2.feeds.simulator.generator import Generator
from k2.feeds.simulator.market import Market
from k2.feeds.simulator.patterns import Pattern
from k2.feeds.simulator.truth import Truth


class BadRequest(ValueError):
    """What is asked for cannot be done. The message says why and what can."""


class Control:
    def __init__(self, markets: Mapping[str, Market], truths: Mapping[str, Truth], changes: Mapping[str, frozenset[str]]) -> None:
        self._markets, self._truths, self._changes = markets, truths, changes

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/state", self._state),
                Route("/truth/summary", self._summary),
                Route("/rate", _post(self._rate), methods=["POST"]),
                Route("/pause", _post(self._pause), methods=["POST"]),
                Route("/resume", _post(self._resume), methods=["POST"]),
                Route("/fault", _post(self._fault), methods=["POST"]),
            ]
        )

    async def _state(self, request: Request) -> Response:
        return JSONResponse({"exchanges": {name: self._describe(market) for name, market in self._markets.items()}})

    def _describe(self, market: Market) -> dict[str, Any]:
        source = market.source
        sessions = [{"session": s.number, "protocol": s.dialect.name, "symbols": sorted(s.subscriptions.symbols)} for s in market.hub.sessions]
        generated = {"rate": source.rate, "pattern": str(source.pattern)} if isinstance(source, Generator) else {"rate": None, "pattern": None}
        faults = [kind for kind in ("silent", "stop_heartbeats", "refuse", "schema_change") if market.hub.active(kind)]
        return {"market": str(market.state), **generated, "sessions": sessions, "faults": faults}

    async def _summary(self, request: Request) -> Response:
        """Per exchange: trades, messages, events by name, and per book its trades, last id and first and last time (µs)."""
        found = {}
        for name, truth in self._truths.items():
            ledger = truth.ledger
            books = {symbol: {"trades": b.trades, "last_id": b.next_id - 1, "first_us": b.first_us, "last_us": b.last_us} for symbol, b in ledger.books.items()}
            found[name] = {"trades": ledger.trades, "messages": ledger.next_message - 1, "events": ledger.events, "books": books}
        return JSONResponse({"exchanges": found})

    def _chosen(self, body: Mapping[str, Any]) -> list[Market]:
        name = body.get("exchange")
        if name is None:
            return list(self._markets.values())
        if name not in self._markets:
            raise BadRequest(f"exchange: {name!r} is not simulated: use one of {', '.join(self._markets)}")
        return [self._markets[name]]

    def _rate(self, body: Mapping[str, Any]) -> None:
        chosen = [m for m in self._chosen(body) if isinstance(m.source, Generator)]
        if not chosen:
            raise BadRequest("recordings are played: their rate is set by --speed")
        try:
            pattern = None if body.get("pattern") is None else Pattern(body["pattern"])
        except ValueError:
            raise BadRequest(f"pattern: {body['pattern']!r} is none of {', '.join(Pattern)}") from None
        rate, total = body.get("rate"), sum(m.source.rate for m in chosen)
        if rate is not None and (not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate <= 1e6):
            raise BadRequest(f"rate: {rate!r} is not a number of trades per second from 0 to 1000000")
        for market in chosen:
            part = market.source.rate / total if total else 1 / len(chosen)
            market.set_rate(None if rate is None else rate * part, pattern)

    def _pause(self, body: Mapping[str, Any]) -> None:
        for market in self._chosen(body):
            market.pause()

    def _resume(self, body: Mapping[str, Any]) -> None:
        for market in self._chosen(body):
            market.resume()

    def _fault(self, body: Mapping[str, Any]) -> None:
        try:
            fault = FAULT.validate_python(body)
        except ValidationError as error:
            raise BadRequest("; ".join(f"{'.'.join(map(str, e['loc'])) or 'fault'}: {e['msg']} (it is {e['input']!r})" for e in error.errors())) from None
        (market,) = self._chosen({"exchange": fault.exchange})
        if isinstance(fault, SchemaChange) and fault.change not in self._changes[fault.exchange]:
            raise BadRequest(f"change: {fault.change.value!r} is not known of {fault.exchange}: use one of {', '.join(sorted(self._changes[fault.exchange]))}")
        market.hub.hurt(fault, market.invent)


def _post(action: Callable[[Mapping[str, Any]], None]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            body = json.loads(await request.body() or b"{}")
            if not isinstance(body, dict):
                raise BadRequest("the body must be a JSON object")
            action(body)
        except (BadRequest, ValueError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({"done": True})

    return endpoint
