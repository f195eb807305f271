"""Losing a part of the control plane, or starting it again with other settings, stops no stream and starts none twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import yaml

from k2.checkpoints.reader import read_tail
from k2.launchers.client import AgentClient
from k2.registry.files import REGISTRY
from k2.registry.observed import DriverState
from k2.registry.runtime import Runtime
from k2.stack import control, records
from k2.stack.home import Home
from k2.stack.status import read_status
from k2.state.database import connect
from k2.state.streams import wanted

SECONDS = 240


def drivers(runtime: Runtime) -> dict[str, tuple[int, int]]:
    """Per stream (fence, pid) of its only living driver; a stream with none or with two is left out."""
    with AgentClient(runtime) as agent:
        found = {stream: [d for d in known if d.state is DriverState.RUNNING] for stream, known in agent.drivers().items()}
    return {stream: (living[0].fence, living[0].pid or 0) for stream, living in found.items() if len(living) == 1}


def committed(runtime: Runtime) -> dict[str, int]:
    """The last committed batch of each stream; -1 before the first."""
    tails = {stream: read_tail(runtime.checkpoint(stream)).last_commit_batch for stream in runtime.platform.streams}
    return {stream: -1 if batch is None else batch for stream, batch in tails.items()}


def wait_until(what: str, holds, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"after {seconds:g} s: not {what}"
        time.sleep(0.5)


def all_committing(runtime: Runtime) -> bool:
    with connect(runtime, "reader") as connection:
        launches = [wanted(connection, stream) for stream in runtime.platform.streams]
    return all(launch.first_commit_at is not None and launch.ended_at is None for launch in launches)


PARTS = ["airflow_api_server", *(pytest.param(part, marks=pytest.mark.full) for part in ("airflow_scheduler", "airflow_triggerer", "host_agent"))]
"""Every day the one whose loss nothing else tries: the eight faults kill the agent, ./k2 chaos the others too."""


@pytest.mark.parametrize("part", PARTS)
def test_kill_9_of_a_part(platform_stack: Runtime, part: str) -> None:
    """The part comes back; every stream has the same driver with the same fence as before, and goes on committing."""
    home = Home(platform_stack.home)
    wait_until("every stream committing", lambda: all_committing(platform_stack))
    before = drivers(platform_stack)
    assert set(before) == set(platform_stack.platform.streams)
    victim = records.recall(home, part)
    assert victim is not None and victim.send(signal.SIGKILL)
    batches = committed(platform_stack)

    def healthy_again() -> bool:
        service = next(s for s in read_status(home).services if s.name == part)
        return service.state == "healthy" and service.pid != victim.pid

    wait_until(f"{part} back", healthy_again)
    wait_until("two more commits of every stream", lambda: all(n >= batches[s] + 2 for s, n in committed(platform_stack).items()))
    assert drivers(platform_stack) == before


@pytest.mark.full
def test_a_new_registry_is_applied_while_the_streams_go_on(platform_stack: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` starts again what keeps no state, and only that; a driver reads its settings when it is started anew."""
    home = Home(platform_stack.home)
    wait_until("every stream committing", lambda: all_committing(platform_stack))
    before, services, batches = drivers(platform_stack), records.living(home), committed(platform_stack)
    assert set(before) == set(platform_stack.platform.streams)
    declared = yaml.safe_load(REGISTRY.read_text())
    declared["dead_man"]["repeat_minutes"] += 1
    (tmp_path / "platform.yaml").write_text(yaml.safe_dump(declared))
    monkeypatch.setenv("K2_PLATFORM", str(tmp_path / "platform.yaml"))
    control.up(home.path)
    changed = {name for name, process in records.living(home).items() if process != services[name]}
    assert changed == {"host_agent", "feed_binance", "feed_kraken", *(name for name in services if name.startswith("airflow_"))}
    assert platform_stack.platform.dead_man.repeat_minutes == declared["dead_man"]["repeat_minutes"]
    wait_until("two more commits of every stream", lambda: all(n >= batches[s] + 2 for s, n in committed(platform_stack).items()))
    monkeypatch.setenv("K2_PLATFORM", str(REGISTRY))
    control.up(home.path)
    assert drivers(platform_stack) == before
    assert all(service.state in ("healthy", "done") for service in read_status(home).services)
