"""What the host agent says of the drivers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from k2.launchers.client import AgentClient
from k2.probes.reading import read
from k2.registry.observed import Driver, DriverState, Reading


@dataclass(frozen=True)
class Drivers:
    """Per stream the newest driver, and older ones that still run. `version` is the agent's, None when it is silent."""

    newest: Mapping[str, Reading[Driver]]
    others: Mapping[str, tuple[Driver, ...]]
    version: int | None


def drivers(agent: AgentClient, names: Iterable[str]) -> Drivers:
    """One call for all streams."""
    answer = read(agent.fleet)
    newest: dict[str, Reading[Driver]] = {}
    others: dict[str, tuple[Driver, ...]] = {}
    for name in names:
        if answer.value is None:
            newest[name] = Reading(answer.at, error=answer.error)
            continue
        known = answer.value.drivers.get(name, [])
        newest[name] = Reading(answer.at, known[0] if known else Driver(DriverState.ABSENT))
        others[name] = tuple(d for d in known[1:] if d.state is DriverState.RUNNING)
    return Drivers(newest, others, answer.value.version if answer.value else None)
