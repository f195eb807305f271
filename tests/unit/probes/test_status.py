"""A driver's own word, and everything that is none."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import httpx
import pytest

from k2.probes.status import statuses
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
RUNNING = Reading(NOW, Driver(DriverState.RUNNING, fence=4, status_url="http://127.0.0.1:4321/status"))


def client(answer: object) -> httpx.Client:
    def respond(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    return httpx.Client(transport=httpx.MockTransport(respond))


def test_a_status_is_read() -> None:
    """All fields arrive, times with their zone."""
    reading = statuses(client(SAID), {"bronze_binance": RUNNING})["bronze_binance"]
    assert reading.value is not None
    assert (reading.value.batch_id, reading.value.phase) == (7, "running")
    assert reading.value.last_event_at == datetime(2026, 1, 1, 0, 0, 0, 250000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("answer", "driver", "words"),
    [
        (SAID | {"fence": 5}, RUNNING, "answers for bronze_binance#5"),
        (SAID | {"stream": "other"}, RUNNING, "answers for other#4"),
        ({"stream": "bronze_binance"}, RUNNING, "ValidationError"),
        (httpx.Response(500, text="oops"), RUNNING, "500"),
        (httpx.Response(200, text="<html>"), RUNNING, "ValidationError"),
        (httpx.ConnectError("refused"), RUNNING, "ConnectError: refused"),
        (httpx.ReadTimeout("slow"), RUNNING, "ReadTimeout"),
        (SAID, Reading(NOW, Driver(DriverState.RUNNING, fence=4)), "does not listen yet"),
        (SAID, Reading(NOW, Driver(DriverState.EXITED, fence=4, status_url="http://127.0.0.1:4321/status")), "no driver runs"),
        (SAID, Reading(NOW, error="agent away"), "the driver is not known"),
    ],
)
def test_what_is_no_status(answer: object, driver: Reading[Driver], words: str) -> None:
    """Another driver's word, a broken one, none at all: each is a reading with its reason, and nothing is raised."""
    reading = statuses(client(answer), {"bronze_binance": driver})["bronze_binance"]
    assert reading.value is None and reading.error is not None
    assert words in reading.error


def test_streams_are_asked_at_the_same_time() -> None:
    """Two answers that each wait for the other question arrive."""
    both = threading.Barrier(2, timeout=5)

    def respond(request: httpx.Request) -> httpx.Response:
        both.wait()
        return httpx.Response(200, json=SAID | {"stream": request.url.path.strip("/")})

    drivers = {name: Reading(NOW, Driver(DriverState.RUNNING, fence=4, status_url=f"http://127.0.0.1:1/{name}")) for name in ("a", "b")}
    readings = statuses(httpx.Client(transport=httpx.MockTransport(respond)), drivers)
    assert all(r.known for r in readings.values())
