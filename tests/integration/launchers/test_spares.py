"""Warm spares, with a real agent and small scripts in place of Spark."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from k2.launchers.spares import AFTER_START_SECONDS, read_spares
from k2.processes import ProcessId
from k2.registry.observed import DriverState

STREAM = "bronze_binance"
Home = Any
"""The fixtures' class, in conftest.py."""


@pytest.fixture
def agent(home: Home) -> Iterator[Home]:
    """An agent that keeps one spare."""
    home.spares(1)
    home.start_agent()
    yield home
    for process, _ in read_spares(home.runtime).values():
        process.send(signal.SIGKILL)


def die(agent: Home, fence: int) -> None:
    """Start the stream with this fence and kill its driver."""
    driver = agent.client.launch(STREAM, fence)
    agent.wait_until(lambda: agent.newest().status_url, "the driver has begun")
    os.kill(driver.pid, signal.SIGKILL)
    agent.wait_until(agent.has_exited, "the driver is gone")


def test_a_spare_becomes_the_driver_of_a_stream_that_died(agent: Home) -> None:
    """It keeps its process and its log, takes the stream's name, and another one is started."""
    spare = agent.wait_warm()
    die(agent, 1)
    driver = agent.client.launch(STREAM, 2, spare=True)
    assert (driver.pid, driver.how) == (spare.pid, "spare")
    agent.wait_until(lambda: agent.newest().status_url, "it has begun")
    assert agent.starts()[-1] == (f"{STREAM}#2", spare.pid)
    log = agent.folder / "logs" / "drivers" / STREAM / "000002.log"
    assert log.read_text() == "I am a spare\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    agent.wait_until(lambda: len(agent.spares_begun()) == 2, "a second spare begins", AFTER_START_SECONDS + 10)
    assert agent.client.stop(STREAM, 2, 5).drained
    assert not ProcessId.of(spare.pid)
    assert len(list((agent.runtime.run / "spares").iterdir())) == 1, "the folder of the spare that was used is left"


def test_a_start_that_was_asked_for_leaves_the_spare(agent: Home) -> None:
    """It waits for the streams that nobody expected to fall."""
    spare = agent.wait_warm()
    assert agent.client.launch(STREAM, 1).how == "cold"
    agent.wait_begun()
    assert spare.alive


def test_a_spare_that_is_not_warm_yet_is_better_than_none(agent: Home) -> None:
    """It is told at once and cuts its preparations short."""
    agent.wait_warm()
    agent.mode("slow-spare")
    die(agent, 1)
    assert agent.client.launch(STREAM, 2, spare=True).how == "spare"
    agent.wait_until(lambda: len(agent.spares_begun()) == 2, "a second spare begins", AFTER_START_SECONDS + 10)
    os.kill(agent.newest().pid, signal.SIGKILL)
    agent.wait_until(agent.has_exited, "the driver is gone")
    driver = agent.client.launch(STREAM, 3, spare=True)
    assert (driver.how, driver.pid) == ("spare, not yet warm", agent.spares_begun()[-1])
    agent.wait_until(lambda: agent.newest().status_url, "it has begun")


def test_a_spare_killed_in_the_last_moment_costs_no_start(agent: Home) -> None:
    """It is not handed over, or its stream's driver is known to have died."""
    spare = agent.wait_warm()
    die(agent, 1)
    spare.send(signal.SIGKILL)
    driver = agent.client.launch(STREAM, 2, spare=True)
    agent.wait_until(lambda: agent.newest().status_url or agent.has_exited(), "it has begun, or is known to have died")
    assert driver.how == "cold" or agent.has_exited()


def test_a_frozen_spare_is_not_handed_over(agent: Home) -> None:
    """It would take the stream's name and do nothing."""
    spare = agent.wait_warm()
    spare.send(signal.SIGSTOP)
    die(agent, 1)
    assert agent.client.launch(STREAM, 2, spare=True).how == "cold"
    agent.wait_until(lambda: not spare.alive, "the frozen spare is ended")


def test_spares_end_with_their_agent_and_drivers_do_not(agent: Home) -> None:
    """After kill -9 of the agent, its spare is gone, a driver that was one lives on and is adopted, and a new spare is started."""
    promoted = agent.wait_warm()
    die(agent, 1)
    agent.client.launch(STREAM, 2, spare=True)
    agent.wait_until(lambda: agent.newest().status_url, "it has begun")
    agent.wait_until(lambda: len(agent.spares_begun()) == 2, "a second spare begins", AFTER_START_SECONDS + 10)
    spare = agent.wait_warm()
    agent.kill_agent()
    agent.wait_until(lambda: not spare.alive, "the spare ends")
    agent.start_agent()
    adopted = agent.newest()
    assert (adopted.state, adopted.pid, adopted.how) == (DriverState.RUNNING, promoted.pid, "spare")
    assert agent.wait_warm() != spare
    assert {path.name for path in (agent.runtime.run / "spares").iterdir()} >= set(read_spares(agent.runtime))


@pytest.mark.parametrize("changed", ["spark_jobs/bronze.py", "platform.yaml"])
def test_a_change_of_code_or_configuration_replaces_spares(agent: Home, changed: str) -> None:
    """A spare of yesterday's code becomes nobody."""
    spare = agent.wait_warm()
    path = agent.folder / changed
    path.write_text(path.read_text() + "\n# changed\n")
    agent.wait_until(lambda: not spare.alive, "the old spare is ended")
    agent.wait_until(lambda: len(agent.spares_begun()) == 2, "a new spare begins")
    assert agent.wait_warm() != spare


def test_spares_that_fail_are_tried_ever_more_rarely(home: Home) -> None:
    """The agent does not start them in a loop, and drivers start cold."""
    home.mode("broken-spare")
    home.spares(1)
    home.start_agent()
    home.wait_until(lambda: home.spares_begun(), "a spare begins")
    die(home, 1)
    home.mode("")
    assert home.client.launch(STREAM, 2, spare=True).how == "cold"
    home.wait_begun(2)
    assert len(home.spares_begun()) == 1


def test_an_agent_that_ends_leaves_no_spare(agent: Home) -> None:
    """After SIGTERM neither process nor folder is left."""
    spare = agent.wait_warm()
    agent.process.terminate()
    agent.process.wait(10)
    assert not spare.alive
    assert list((agent.runtime.run / "spares").iterdir()) == []
