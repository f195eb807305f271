"""The watchdog's actions broken off at every step: by its own death, by the database's, by the host agent's.

Whatever the step, the next look finds what is left to do: a start is continued under its own fence, and none is made twice.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from k2 import watchdog
from k2.registry.observed import Action, Decision, DriverState, Verdict
from k2.state import database, streams
from k2.supervision import judge, policy

from .killing import Steps, killed_at

STREAM = "bronze_binance"
MOST_STEPS = 60
LEAST_STEPS = {"death": 16, "restart": 24, "stop": 12}
"""By what is to be done; fewer would mean that the steps are no longer seen."""

Watched = Any


@pytest.fixture
def watched(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """All streams up; no death and no intent is waited for."""
    watched.up()
    monkeypatch.setattr(policy, "backoff", lambda *_: timedelta(0))
    monkeypatch.setattr(judge, "INTENT_GRACE", timedelta(0))
    return watched


def cause(watched: Watched, kind: str) -> Decision:
    """Make something to do about the stream; returns what is decided about it."""
    if kind == "death":
        watched.kill()
    else:
        watched.want("running" if kind == "restart" else "stopped")
    found = watched.look()[STREAM]
    assert found.action is {"death": Action.START, "restart": Action.REPLACE, "stop": Action.STOP}[kind]
    return found


def recover(watched: Watched, kind: str) -> None:
    """Watch until nothing is left to do, and check what must hold whatever was broken off."""
    desired = "stopped" if kind == "stop" else "running"
    for _ in range(6):
        if not watched.watch():
            break
    else:
        pytest.fail(f"the watchdog does not come to an end: {watched.look()[STREAM]}")
    driver = watched.home.newest()
    ledger = watched.ledger()
    fences = [row["fence"] for row in ledger]
    assert fences == list(range(1, len(fences) + 1)), "a fence was skipped"
    if desired == "running":
        watched.home.wait_until(lambda: (f"{STREAM}#{fences[-1]}", driver.pid) in watched.home.starts(), "the driver began")
        assert (driver.state, driver.fence) == (DriverState.RUNNING, fences[-1])
    assert driver.fence == fences[-1] and (driver.state is DriverState.RUNNING) == (desired == "running")
    assert len([d for d in watched.home.client.drivers()[STREAM] if d.state is DriverState.RUNNING]) == (desired == "running")
    begun = [tag for tag, _ in watched.home.starts()]
    assert len(begun) == len(set(begun)), "a fence was launched twice"
    assert all(row["ended_at"] is not None for row in ledger[:-1]), "the ledger has an older launch without an end"
    assert all(row["launched_at"] is not None for row in ledger), "the ledger has a launch that nobody recorded"
    if desired == "stopped":
        watched.want("running")
        watched.watch()
    settle(watched)


def settle(watched: Watched) -> None:
    """The stream commits and is forgiven, so that the next round begins as the first."""
    fence = watched.ledger()[-1]["fence"]
    watched.home.wait_until(lambda: watched.home.newest().status_url, "the driver listens")
    watched.commit(STREAM, fence)
    with database.connect(watched.runtime, "control") as connection:
        streams.forgive(connection, STREAM, fence)
    assert watched.look()[STREAM].verdict is Verdict.IDLE


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", LEAST_STEPS)
def test_killed_at_every_step(watched: Watched, kind: str) -> None:
    """The process that acts is killed with -9 at each step in turn, as an Airflow task may be."""
    for at in range(1, MOST_STEPS):
        decision = cause(watched, kind)
        killed = killed_at(at, lambda: watchdog.act(watched.runtime, [decision]))  # noqa: B023
        recover(watched, kind)
        if not killed:
            break
    assert LEAST_STEPS[kind] <= at < MOST_STEPS - 1


@pytest.mark.timeout(600)
def test_the_database_breaks_off_at_every_step(watched: Watched) -> None:
    """PostgreSQL ends all sessions at each step in turn: the action fails and says so, or was done."""

    def end_sessions() -> None:
        with psycopg.connect(**watched.runtime.conninfo("admin")) as admin:
            admin.cursor().execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'k2_control'")

    broken_off(watched, end_sessions, "StateUnavailable", "OperationalError", "AdminShutdown", "InterfaceError")


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_agent_is_killed_at_every_step(watched: Watched) -> None:
    """The host agent is killed with -9 and comes back at each step in turn; the drivers live on and are adopted."""

    def restart_agent() -> None:
        watched.home.kill_agent()
        watched.home.start_agent()

    broken_off(watched, restart_agent, "AgentUnavailable")


def broken_off(watched: Watched, breaks: Callable[[], None], *errors: str) -> None:
    """A restart, which is a stop and a start, with something that breaks at each step in turn."""
    kind = "restart"
    for at in range(1, MOST_STEPS):
        decision = cause(watched, kind)
        steps = Steps(at, breaks)
        with steps.installed():
            (done,) = watchdog.act(watched.runtime, [decision])
        assert done.ok or done.detail.startswith(errors), done
        recover(watched, kind)
        if steps.passed < at:
            break
    assert LEAST_STEPS[kind] <= at < MOST_STEPS - 1
