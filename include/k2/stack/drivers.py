"""Stopping the stream drivers, with the host agent or without it."""

from __future__ import annotations

from k2.launchers.client import AgentClient, AgentRefused, AgentUnavailable
from k2.launchers.records import alive, read_all
from k2.processes import ProcessId, end, family
from k2.registry.runtime import Runtime


def recorded_drivers(runtime: Runtime) -> dict[str, ProcessId]:
    """The living drivers that the host agent recorded, by stream and fence: `bronze_kraken#7`."""
    records, _unreadable = read_all(runtime)  # what cannot be read is still found by its environment
    return {record.tag: record.process for record in records if record.process and alive(record)}


def drain_drivers(runtime: Runtime) -> None:
    """Ask the agent to drain all drivers; what is left after that, or without an agent, gets SIGTERM, then SIGKILL."""
    timeout = runtime.platform.restart.drain_timeout_seconds
    try:
        with AgentClient(runtime) as agent:
            agent.stop_all(timeout)
    except (AgentUnavailable, AgentRefused):
        # The agent is gone or stuck: its drivers get the same signal from here.
        pass
    drivers = list(recorded_drivers(runtime).values())
    members = family(drivers)
    end(drivers, grace_seconds=timeout)
    end([m for m in members if m.alive], grace_seconds=2)
