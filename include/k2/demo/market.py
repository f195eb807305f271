"""The simulated exchanges, as the demo uses them: pause, resume, and what the feeds missed."""

from __future__ import annotations

from typing import Any

import httpx

from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error

TIMEOUT_SECONDS = 5.0


class Market:
    """The exchange simulator behind its control endpoint. Raises K2Error where the feeds use the real exchanges."""

    def __init__(self, runtime: Runtime) -> None:
        if runtime.exchange_simulator is None:
            raise K2Error("the platform's feeds use the real exchanges, which cannot be paused: set K2_HOME to another folder")
        self._client = httpx.Client(base_url=runtime.exchange_simulator, timeout=TIMEOUT_SECONDS, trust_env=False)

    def pause(self) -> None:
        self._client.post("/pause").raise_for_status()

    def resume(self) -> None:
        self._client.post("/resume").raise_for_status()

    def finished(self) -> bool:
        """Whether a replay has sent its last trade, on every exchange."""
        state: dict[str, Any] = self._client.get("/state").raise_for_status().json()
        return all(market["market"] == "finished" for market in state["exchanges"].values())
