"""The host agent as a real process, with real children."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from typing import Any

import psutil
import pytest

from k2.launchers import records
from k2.launchers.client import AgentRefused, AgentUnavailable
from k2.launchers.start import end_older
from k2.processes import ProcessId
from k2.registry.observed import DriverState

STREAM = "bronze_binance"
Home = Any
"""The fixtures' class, in conftest.py."""


def test_a_driver_starts_once_however_often_it_is_asked_for(agent: Home) -> None:
    """Ten requests with one tag, five of them at the same time, make one process."""
    pids = [agent.client.launch(STREAM, 1).pid for _ in range(5)]
    threads = [threading.Thread(target=lambda: pids.append(agent.client.launch(STREAM, 1).pid)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    agent.wait_begun()
    assert agent.starts() == [(f"{STREAM}#1", pids[0])]
    assert len(pids) == 10 and set(pids) == {pids[0]}


def test_a_running_driver_tells_where_it_is(agent: Home) -> None:
    """The driver's address comes from its ready.json, its process leads a session of its own, its output is a private file."""
    driver = agent.client.launch(STREAM, 7)
    agent.wait_begun()
    now = agent.newest()
    assert (now.state, now.fence, now.exit_code) == (DriverState.RUNNING, 7, None)
    assert now.status_url is not None and now.status_url.startswith("http://127.0.0.1:")
    assert driver.pid is not None and os.getsid(driver.pid) == driver.pid
    log = agent.folder / "logs" / "drivers" / STREAM / "000007.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_the_socket_is_private(agent: Home) -> None:
    """Only the owner may open the socket or enter its folder."""
    path = agent.runtime.agent_socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_second_agent_leaves(agent: Home) -> None:
    """A second agent on one home says so and ends, and the first keeps serving."""
    second = agent.run_agent()
    assert second.returncode == 1
    assert "another host agent serves" in second.stderr
    assert agent.client.drivers() == {}


def test_an_agent_killed_and_started_again_adopts_what_runs(agent: Home) -> None:
    """The driver outlives the agent, is found again, is not started twice, and its end is still seen."""
    pid = agent.client.launch(STREAM, 3).pid
    agent.wait_begun()
    url = agent.newest().status_url
    agent.kill_agent()
    with pytest.raises(AgentUnavailable):
        agent.client.drivers()
    assert pid is not None and ProcessId.of(pid) is not None
    agent.start_agent()
    adopted = agent.client.launch(STREAM, 3)
    assert (adopted.pid, adopted.state, adopted.status_url) == (pid, DriverState.RUNNING, url)
    assert len(agent.starts()) == 1
    os.kill(pid, signal.SIGKILL)
    agent.wait_until(lambda: agent.has_exited(), "the adopted driver's death is seen")
    assert agent.newest().exit_code is None, "nobody saw how it ended"


def test_an_agent_killed_between_start_and_record_finds_the_driver(agent: Home) -> None:
    """A record without a pid is completed from the process that carries its tag."""
    pid = agent.client.launch(STREAM, 3).pid
    agent.wait_begun()
    agent.kill_agent()
    (record,), _ = records.read_all(agent.runtime)
    record.process = None
    records.write(agent.runtime, record)
    agent.start_agent()
    assert (agent.newest().pid, agent.newest().state) == (pid, DriverState.RUNNING)
    assert agent.client.launch(STREAM, 3).pid == pid
    assert len(agent.starts()) == 1


def test_a_death_while_no_agent_ran_is_found(agent: Home) -> None:
    """A driver that left while the agent was away is reported with the code that it wrote itself, its leftovers are killed."""
    agent.mode("child")
    pid = agent.client.launch(STREAM, 1).pid
    agent.wait_begun()
    assert pid is not None
    child = next(p for p in agent.processes(pid, 2) if p.pid != pid)
    agent.kill_agent()
    os.kill(pid, signal.SIGTERM)
    agent.wait_until(lambda: ProcessId.of(pid) is None, "the driver left")
    assert child.alive
    agent.start_agent()
    assert (agent.newest().state, agent.newest().exit_code, agent.newest().asked) == (DriverState.EXITED, 0, False)
    agent.wait_until(lambda: not child.alive, "the leftover is killed")


@pytest.mark.parametrize(
    ("mode", "signum", "code", "message"),
    [
        ("exit", None, 70, "QueryFailed: the source is gone"),
        ("", signal.SIGKILL, -9, ""),
        ("", signal.SIGTERM, 0, "Stopped: asked to stop"),
    ],
)
def test_exit_codes_are_seen(agent: Home, mode: str, signum: int | None, code: int, message: str) -> None:
    """The parent learns the code, or the signal as a negative number, and the driver's own words."""
    agent.mode(mode)
    pid = agent.client.launch(STREAM, 1).pid
    assert pid is not None
    if signum is not None:
        agent.wait_begun()
        os.kill(pid, signum)
    agent.wait_until(lambda: agent.has_exited(), "it ended")
    driver = agent.newest()
    assert (driver.exit_code, driver.exit_message, driver.asked) == (code, message, False)
    assert driver.ended_at is not None and driver.started_at is not None and driver.ended_at > driver.started_at
    agent.kill_agent()
    agent.start_agent()
    assert agent.newest().exit_code == code, "the next agent remembers it"


def test_a_death_is_told_at_once(agent: Home) -> None:
    """Who waits for a change has it within a fraction of a second, and who waits in vain learns that there is none."""
    pid = agent.client.launch(STREAM, 1).pid
    agent.wait_begun()
    before = agent.client.fleet()
    assert pid is not None
    agent.client.wait_for_change(before.version, 0.2)
    assert agent.client.changes(before.version) is None
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    started = time.monotonic()
    agent.client.wait_for_change(before.version, 10)
    assert 0.2 < time.monotonic() - started < 5
    after = agent.client.changes(before.version)
    assert after is not None and after.drivers[STREAM][0].state is DriverState.EXITED


def test_the_rest_of_the_session_dies_with_the_leader(agent: Home) -> None:
    """A JVM in another process group of the session does not outlive its Python driver."""
    agent.mode("child")
    pid = agent.client.launch(STREAM, 1).pid
    agent.wait_begun()
    assert pid is not None
    child = next(p for p in agent.processes(pid, 2) if p.pid != pid)
    os.kill(pid, signal.SIGKILL)
    agent.wait_until(lambda: not child.alive, "the child is killed")


def test_stop_drains(agent: Home) -> None:
    """A driver that obeys SIGTERM is drained, and its end counts as asked for, after a restart of the agent too."""
    agent.client.launch(STREAM, 1)
    agent.wait_begun()
    stopped = agent.client.stop(STREAM, 1, 10)
    assert (stopped.drained, stopped.exit_code) == (True, 0)
    agent.kill_agent()
    agent.start_agent()
    assert agent.newest().asked
    assert agent.client.stop(STREAM, 1, 10).drained, "stopping again tells the same"


def test_stop_kills_at_the_deadline(agent: Home) -> None:
    """A driver frozen with SIGSTOP is killed with all its processes, and the answer says that it was not drained."""
    agent.mode("child")
    pid = agent.client.launch(STREAM, 1).pid
    agent.wait_begun()
    assert pid is not None
    frozen = agent.processes(pid, 2)
    for process in frozen:
        process.send(signal.SIGSTOP)
    started = time.monotonic()
    stopped = agent.client.stop(STREAM, 1, 0.5)
    assert 0.5 <= time.monotonic() - started < 5
    assert (stopped.drained, stopped.exit_code) == (False, -9)
    assert not any(p.alive for p in frozen)


def test_stop_joins_a_stop(agent: Home) -> None:
    """Two callers that stop one driver get one answer, and a caller that went away changes nothing."""
    agent.mode("deaf")
    agent.client.launch(STREAM, 1)
    agent.wait_begun()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(agent.client.stop(STREAM, 1, 0.6))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.drained for a in answers] == [False, False]


def test_stop_all_stops_every_stream(agent: Home) -> None:
    """Drained and killed drivers are told apart by tag."""
    agent.client.launch(STREAM, 1)
    agent.wait_begun()
    agent.mode("deaf")
    agent.client.launch("bronze_kraken", 4)
    agent.wait_until(lambda: len(agent.starts()) == 2 and agent.newest("bronze_kraken").status_url, "both run")
    ended = agent.client.stop_all(0.8)
    assert {tag: end.drained for tag, end in ended.items()} == {f"{STREAM}#1": True, "bronze_kraken#4": False}
    assert agent.client.stop_all(1) == {}
    assert agent.client._call("POST", "/stop-all") == {}, "the deadline may be left to the registry"


def test_older_drivers_are_listed_while_they_run_and_can_be_ended(agent: Home) -> None:
    """Two drivers of a stream are both told, newest first; ending the older ones spares the newest, a stopped one too."""
    old = agent.client.launch(STREAM, 1).pid
    agent.wait_begun()
    assert old is not None
    os.kill(old, signal.SIGSTOP)
    agent.client.launch(STREAM, 2)
    agent.wait_begun(2)
    assert [d.fence for d in agent.client.drivers()[STREAM]] == [2, 1]
    assert end_older(agent.client, STREAM, 2) == 1
    assert [(d.fence, d.state) for d in agent.client.drivers()[STREAM]] == [(2, DriverState.RUNNING)]
    assert ProcessId.of(old) is None


def test_what_the_agent_refuses(agent: Home) -> None:
    """A stale fence, an undeclared stream, an unknown driver and a malformed request start and stop nothing."""
    agent.client.launch(STREAM, 5)
    agent.wait_begun()
    for call, words in [
        (lambda: agent.client.launch(STREAM, 4), "fence 4 of bronze_binance is stale: a driver with fence 5"),
        (lambda: agent.client.launch("bronze_nasdaq", 1), "'bronze_nasdaq' is not in the registry"),
        (lambda: agent.client.launch(STREAM, 0), "number from 1"),
        (lambda: agent.client.launch("../../etc", 9), "not in the registry"),
        (lambda: agent.client.kill(STREAM, 4), "no driver bronze_binance#4"),
        (lambda: agent.client.stop(STREAM, 5, -1), "deadline_seconds is -1"),
    ]:
        with pytest.raises(AgentRefused, match=words):
            call()
    agent.kill_agent()
    agent.start_agent()
    with pytest.raises(AgentRefused, match="stale"):
        agent.client.launch(STREAM, 4)
    assert len(agent.starts()) == 1


def test_a_driver_that_cannot_be_started_is_a_driver_that_ended(agent: Home) -> None:
    """A missing job script is an exit like any other, so that it is backed off and told."""
    (agent.folder / "spark_jobs" / "bronze.py").unlink()
    agent.client.launch(STREAM, 1)
    agent.wait_until(lambda: agent.has_exited(), "it ended")
    assert agent.newest().exit_code == 2


def test_a_record_that_cannot_be_written_hides_no_death(agent: Home) -> None:
    """As on a full disk: the agent goes on, tells the end of the driver, and starts the next one."""
    agent.client.launch(STREAM, 1)
    agent.wait_begun()
    (agent.runtime.driver_dir(STREAM, 1) / f".{records.RECORD}").mkdir()
    os.kill(agent.newest().pid, signal.SIGKILL)
    agent.wait_until(agent.has_exited, "the death is told")
    assert agent.newest().exit_code == -signal.SIGKILL
    assert agent.client.launch(STREAM, 2).state is DriverState.RUNNING


def test_a_start_that_cannot_be_written_down_is_none(agent: Home) -> None:
    """Nothing begins that a later agent could not know, and the same start works once there is room."""
    folder = agent.runtime.driver_dir(STREAM, 1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()
    with pytest.raises(AgentUnavailable, match=f"File exists.*{STREAM}#1"):
        agent.client.launch(STREAM, 1)
    assert agent.starts() == []
    assert agent.client.drivers() == {}
    folder.unlink()
    agent.client.launch(STREAM, 1)
    agent.wait_begun()


def test_only_the_last_drivers_are_kept(agent: Home) -> None:
    """Folders and logs of long-gone drivers are removed, running ones and the newest twenty stay."""
    agent.client.launch(STREAM, 1)
    agent.wait_begun()
    agent.mode("exit")
    for fence in range(2, 25):
        agent.client.launch(STREAM, fence)
        agent.wait_until(lambda: agent.has_exited(), "it ended")
    fences = sorted(int(p.name.partition("#")[2]) for p in (agent.folder / "run" / "drivers").iterdir())
    assert fences == [1, *range(5, 25)]
    logs = sorted(int(p.stem) for p in (agent.folder / "logs" / "drivers" / STREAM).iterdir())
    assert logs == fences


def test_the_agent_is_small(agent: Home) -> None:
    """The agent takes less than 80 MiB, well inside its budget."""
    assert agent.process is not None
    agent.client.launch(STREAM, 1)
    agent.wait_begun()
    assert psutil.Process(agent.process.pid).memory_info().rss < 80 * 2**20
