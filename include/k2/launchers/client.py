"""Client of the host agent. Synchronous; from an event loop call it through `asyncio.to_thread`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from k2.registry.observed import Driver, Stopped
from k2.registry.runtime import Runtime
from k2.registry.shadow import Shadow

ANSWER_SECONDS = 5.0
KILL_SECONDS = 30.0
NO_TLS = False
"""The socket carries plain HTTP; loading a certificate store would take a tenth of a second of every look."""

_DRIVER = TypeAdapter(Driver)
_SHADOW = TypeAdapter(Shadow)
_DRIVERS = TypeAdapter(dict[str, list[Driver]])


class AgentUnavailable(RuntimeError):
    """The host agent did not answer, or not in its own words. What it would have said is unknown."""


class AgentRefused(RuntimeError):
    """The host agent understood and refused: an undeclared stream, a stale fence, a driver it never started."""


@dataclass(frozen=True)
class Snapshot:
    """Per stream the newest driver, then older ones that still run. `version` rises with each change."""

    version: int
    drivers: dict[str, list[Driver]]


class AgentClient:
    """Each call raises AgentUnavailable when the agent's answer cannot be had, AgentRefused when it says no."""

    def __init__(self, runtime: Runtime) -> None:
        self._socket = runtime.agent_socket
        self._http = httpx.Client(transport=httpx.HTTPTransport(uds=str(runtime.agent_socket), verify=NO_TLS), base_url="http://agent", timeout=ANSWER_SECONDS)

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def fleet(self) -> Snapshot:
        """The drivers now."""
        return _snapshot(self._call("GET", "/drivers"))

    def wait_for_change(self, version: int, wait_seconds: float) -> None:
        """Return as soon as the agent's drivers are not as at `version`, or after the wait."""
        self._call("GET", "/drivers", params={"version": version, "wait": wait_seconds}, timeout=ANSWER_SECONDS + wait_seconds)

    def changes(self, version: int | None) -> Snapshot | None:
        """The drivers now; None when they are still as at `version`. Memory changes no version."""
        query: dict[str, int] = {} if version is None else {"version": version}
        answer = self._call("GET", "/drivers", params=query)
        if version is not None and "drivers" not in answer and answer.get("version") == version:
            return None
        return _snapshot(answer)

    def drivers(self) -> dict[str, list[Driver]]:
        """Per stream the newest driver, then every older one that still runs. A stream never started is missing."""
        return self.fleet().drivers

    def launch(self, stream: str, fence: int, *, spare: bool = False) -> Driver:
        """Start a driver, from a spare if that is allowed, or learn what became of the one that was started with this fence before."""
        answer = self._call("POST", "/drivers", json={"stream": stream, "fence": fence, "spare": spare})
        try:
            return _DRIVER.validate_python(answer)
        except ValidationError as error:
            raise AgentUnavailable(f"the host agent's driver cannot be read: {error}") from error

    def stop(self, stream: str, fence: int, deadline_seconds: float) -> Stopped:
        """Drain the driver, kill it at the deadline. Returns when it is gone."""
        answer = self._call("POST", f"/drivers/{stream}/{fence}/stop", json={"deadline_seconds": deadline_seconds}, timeout=deadline_seconds + KILL_SECONDS)
        return _stopped(answer)

    def kill(self, stream: str, fence: int) -> int:
        """Kill all processes of the driver. Returns how many there were, when they are gone."""
        return int(self._call("POST", f"/drivers/{stream}/{fence}/kill", timeout=KILL_SECONDS)["killed"])

    def dump(self, stream: str, fence: int) -> str:
        """Have the driver write down what its threads do. Returns the file's path; empty when it could not."""
        return str(self._call("POST", f"/drivers/{stream}/{fence}/dump", timeout=KILL_SECONDS)["path"])

    def shadow(self, stream: str, query_id: str, deadline_seconds: float) -> Shadow:
        """Try the code and configuration of now on a copy of the stream's checkpoint, which must be that of the query."""
        body = {"stream": stream, "query_id": query_id, "deadline_seconds": deadline_seconds}
        answer = self._call("POST", "/shadows", json=body, timeout=deadline_seconds + KILL_SECONDS)
        try:
            return _SHADOW.validate_python(answer)
        except ValidationError as error:
            raise AgentUnavailable(f"the host agent's word on the shadow cannot be read: {error}") from error

    def stop_all(self, deadline_seconds: float) -> dict[str, Stopped]:
        """Stop every driver, by tag `<stream>#<fence>`. Returns when all are gone."""
        answer = self._call("POST", "/stop-all", json={"deadline_seconds": deadline_seconds}, timeout=deadline_seconds + KILL_SECONDS)
        return {tag: _stopped(end) for tag, end in answer.items()}

    def _call(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **kwargs)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise AgentUnavailable(f"the host agent at {self._socket} did not answer {method} {path}: {type(error).__name__}: {error}") from error
        if response.status_code in (400, 404, 409):
            raise AgentRefused(f"the host agent refused {method} {path}: {answer.get('error', answer)}")
        if response.status_code != 200:
            raise AgentUnavailable(f"the host agent failed at {method} {path}: {response.status_code} {answer.get('error', answer)}")
        return dict(answer)


def _snapshot(answer: dict[str, Any]) -> Snapshot:
    try:
        return Snapshot(int(answer["version"]), _DRIVERS.validate_python(answer["drivers"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AgentUnavailable(f"the host agent's list of drivers cannot be read: {error}") from error


def _stopped(answer: dict[str, Any]) -> Stopped:
    return Stopped(drained=bool(answer["drained"]), exit_code=answer["exit_code"])
