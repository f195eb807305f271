"""A driver's own word, and everything that is none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from k2.probes.status import as_they_come, statuses
from k2.registry.observed import Driver, DriverState, Reading

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SAID = {
    "stream": "bronze_binance",
    "fence": 4,
    "query_id": "q",
    "run_id": "r",
    "batch_id": 7,
    "message": "Waiting",
    "phase": "running",
    "waits_for": None,
    "last_event_at": "2026-01-01T00:00:00.250000+00:00",
    "batch_seconds": 0.5,
    "input_rows": 3,
}


class Server(ThreadingHTTPServer):
    """Answers each path with what `answers` has for it: a status and a body, or an event to wait for first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Any] = {}

    def driver(self, path: str, answer: Any, **fields: Any) -> Reading[Driver]:
        self.answers[path] = answer
        return Reading(NOW, Driver(**{"state": DriverState.RUNNING, "fence": 4, "status_url": f"http://127.0.0.1:{self.server_port}{path}"} | fields))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = self.server.answers[self.path]  # type: ignore[attr-defined]
        if isinstance(answer, threading.Event):
            answer.wait(10)
            answer = (200, b"")
        if isinstance(answer, bytes):
            self.wfile.write(answer)
            return
        status, body = answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_a_status_is_read(server: Server) -> None:
    """All fields arrive, times with their zone, and the word is as old as the question."""
    before = datetime.now(UTC)
    reading = statuses({"bronze_binance": server.driver("/status", SAID)})["bronze_binance"]
    assert reading.value is not None and before <= reading.at <= datetime.now(UTC)
    assert (reading.value.batch_id, reading.value.phase) == (7, "running")
    assert reading.value.last_event_at == datetime(2026, 1, 1, 0, 0, 0, 250000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("answer", "driver", "words"),
    [
        (SAID | {"fence": 5}, {}, "answers for bronze_binance#5"),
        (SAID | {"stream": "other"}, {}, "answers for other#4"),
        ({"stream": "bronze_binance"}, {}, "ValidationError"),
        ((500, b"oops"), {}, "it answers HTTP/1.0 500"),
        ((200, b"<html>"), {}, "ValidationError"),
        ((200, b"\xff\xfe\x00"), {}, "ValidationError"),
        (b"", {}, "it is no HTTP"),
        (b"garbage without an end", {}, "it is no HTTP"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{}", {}, "broke off after 2 of 100 bytes"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\n{}", {}, "ValueError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {}, "encoding that is not read here: chunked"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * (2 << 20), {}, "longer than"),
        (SAID, {"status_url": "http://127.0.0.1:1/status"}, "ECONNREFUSED"),
        (SAID, {"status_url": "ftp://127.0.0.1/status"}, "only http://"),
        (SAID, {"status_url": None}, "does not listen yet"),
        (SAID, {"state": DriverState.EXITED}, "no driver runs"),
    ],
)
def test_what_is_no_status(server: Server, answer: Any, driver: dict[str, Any], words: str) -> None:
    """Another driver's word, a broken one, none at all: each is a reading with its reason, and nothing is raised."""
    reading = statuses({"bronze_binance": server.driver("/status", answer, **driver)})["bronze_binance"]
    assert reading.value is None and reading.error is not None
    assert words in reading.error


def test_a_driver_that_is_not_known_is_not_asked() -> None:
    """An agent that is away leaves a reading with its reason."""
    reading = statuses({"bronze_binance": Reading(NOW, error="agent away")})["bronze_binance"]
    assert reading.error == "the driver is not known"


def test_a_frozen_driver_delays_no_other(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' words come at once, its own absence when its time is over."""
    monkeypatch.setattr("k2.probes.status.ANSWER_SECONDS", 0.3)
    frozen = threading.Event()
    drivers = {"frozen": server.driver("/frozen", frozen), **{name: server.driver(f"/{name}", SAID | {"stream": name}) for name in ("a", "b", "c")}}
    came = list(as_they_come(drivers))
    frozen.set()
    assert [name for name, _ in came][-1] == "frozen" and all(reading.known for _, reading in came[:-1])
    assert "did not answer within 0.3 s" in str(came[-1][1].error)


def test_more_streams_than_are_asked_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stream has its turn, also behind one that never answers."""
    monkeypatch.setattr("k2.probes.status.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("k2.probes.fetch.AT_ONCE", 2)
    frozen = threading.Event()
    drivers = {"frozen": server.driver("/frozen", frozen), **{f"s{n}": server.driver(f"/s{n}", SAID | {"stream": f"s{n}"}) for n in range(9)}}
    found = statuses(drivers)
    frozen.set()
    assert sum(reading.known for reading in found.values()) == 9 and len(found) == 10
