"""The agent's client: what is an answer, what is a refusal, and what cannot be known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from k2.launchers.client import AgentClient, AgentRefused, AgentUnavailable
from k2.registry.observed import Driver, DriverState, Stopped

RUNNING = {"state": "running", "fence": 3, "pid": 7, "started_at": "2026-01-01T00:00:00Z"}


def client(tmp_path: Path, answer: Any) -> AgentClient:
    def respond(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = AgentClient(SimpleNamespace(agent_socket=tmp_path / "agent.sock"))
    made._http = httpx.Client(transport=httpx.MockTransport(respond), base_url="http://agent")
    return made


def test_drivers_are_values(tmp_path: Path) -> None:
    """The list comes back as Driver values with aware times."""
    (driver,) = client(tmp_path, httpx.Response(200, json={"version": 4, "drivers": {"a": [RUNNING]}})).drivers()["a"]
    assert isinstance(driver, Driver)
    assert (driver.state, driver.fence, driver.pid) == (DriverState.RUNNING, 3, 7)
    assert driver.started_at is not None and driver.started_at.tzinfo is not None


def test_a_stop_tells_whether_it_drained(tmp_path: Path) -> None:
    """Both forms of stop give the same value."""
    ended = {"drained": False, "exit_code": None}
    assert client(tmp_path, httpx.Response(200, json=ended)).stop("a", 3, 1) == Stopped(False, None)
    assert client(tmp_path, httpx.Response(200, json={"a#3": ended})).stop_all(1) == {"a#3": Stopped(False, None)}


@pytest.mark.parametrize("status", [400, 404, 409])
def test_a_refusal_is_the_agents_word(tmp_path: Path, status: int) -> None:
    """The agent understood and said no."""
    with pytest.raises(AgentRefused, match="fence 2 of a is stale"):
        client(tmp_path, httpx.Response(status, json={"error": "fence 2 of a is stale"})).launch("a", 2)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("connection refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(500, json={"error": "broken"}),
        httpx.Response(500, text="Internal Server Error"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"drivers": {}}),
        httpx.Response(200, json={"version": 1, "drivers": {"a": [{"state": "dancing"}]}}),
        httpx.Response(200, json={"version": 1, "drivers": None}),
    ],
)
def test_anything_else_is_unknown(tmp_path: Path, answer: Any) -> None:
    """Silence, a failure and words that make no sense are never an empty list."""
    with pytest.raises(AgentUnavailable):
        client(tmp_path, answer).drivers()


def test_no_socket_is_unknown(tmp_path: Path) -> None:
    """An agent that was never started is away, and the message names its socket."""
    with AgentClient(SimpleNamespace(agent_socket=tmp_path / "agent.sock")) as away, pytest.raises(AgentUnavailable, match="agent.sock"):
        away.drivers()
