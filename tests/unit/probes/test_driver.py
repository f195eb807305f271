"""The host agent's word as readings."""

from __future__ import annotations

from typing import Any

from k2.launchers.client import AgentUnavailable, Snapshot
from k2.probes.driver import drivers
from k2.registry.observed import Driver, DriverState

NEW = Driver(DriverState.EXITED, fence=5, exit_code=-9)
OLD = Driver(DriverState.RUNNING, fence=4)


class Agent:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def fleet(self) -> Snapshot:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_newest_and_older_drivers() -> None:
    """The newest driver is the stream's; older ones that run are told beside it; a stream never started is absent, not unknown."""
    found = drivers(Agent(Snapshot(3, {"a": [NEW, OLD]})), ["a", "b"])
    assert found.newest["a"].value == NEW and found.others["a"] == (OLD,)
    assert found.newest["b"].value == Driver(DriverState.ABSENT)
    assert found.version == 3


def test_a_silent_agent_makes_every_driver_unknown() -> None:
    """No stream is absent because the agent is away."""
    found = drivers(Agent(AgentUnavailable("connection refused")), ["a", "b"])
    assert [found.newest[n].error for n in "ab"] == ["AgentUnavailable: connection refused"] * 2
    assert found.version is None and found.others == {}
