"""The supervisor on small real processes: order, restart, adoption, stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from k2.launchers import sessions
from k2.processes import ProcessId, end, family
from k2.stack import records, supervisor
from k2.stack.home import Home, write_atomically
from k2.stack.service import Service, Unhealthy
from k2.stack.supervisor import Phase, Supervisor, rotate


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", (0.1, 0.1))
    monkeypatch.setattr(supervisor, "CHECK_SECONDS", 0.05)
    home = Home(tmp_path / "home")
    home.create()
    yield home
    end(family(records.living(home).values()), grace_seconds=0)


async def always(_: datetime) -> None:
    return None


def sleeper(home: Home, name: str, *needs: str, code: str = "", **rest: object) -> Service:
    """A process that notes its name in `order` and stays."""
    script = f"open({str(home.path / 'order')!r}, 'a').write({name + chr(10)!r}); {code or 'import time; time.sleep(60)'}"
    return Service(name=name, argv=(sys.executable, "-c", script), needs=needs, **({"healthy": always} | rest))  # type: ignore[arg-type]


def want(home: Home, *names: str, serial: int = 1) -> None:
    write_atomically(home.wanted_file, json.dumps({"services": list(names), "serial": serial}))


@contextlib.asynccontextmanager
async def supervised(home: Home, *services: Service, made_of: str = "") -> AsyncIterator[Supervisor]:
    """A supervisor whose tasks are cancelled at the end, as if it were killed: nothing is stopped."""
    boss = Supervisor(home, {s.name: s for s in services}, dict(os.environ), made_of)
    boss.apply()
    try:
        yield boss
    finally:
        for keeper in boss._keepers.values():
            keeper.cancel()
        await asyncio.gather(*boss._keepers.values(), return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


def phase(boss: Supervisor, name: str) -> Phase:
    return boss.status[name].phase


def test_a_service_starts_after_what_it_needs_is_ready(home: Home) -> None:
    """Not when that was started, but when its set-up is done."""
    done: list[str] = []

    def set_up() -> None:
        assert (home.path / "order").read_text().split() == ["base"]
        done.append("set-up")

    async def scenario() -> None:
        want(home, "top")
        async with supervised(home, sleeper(home, "base", setup=set_up), sleeper(home, "top", "base")) as boss:
            await until(lambda: phase(boss, "top") is Phase.HEALTHY)
            await until(lambda: (home.path / "order").read_text().split() == ["base", "top"])

    asyncio.run(scenario())
    assert done == ["set-up"]


def test_a_crashed_service_is_started_again(home: Home) -> None:
    """Killed with -9 it comes back as another process, and the restart is counted."""

    async def scenario() -> None:
        want(home, "one")
        async with supervised(home, sleeper(home, "one")) as boss:
            await until(lambda: phase(boss, "one") is Phase.HEALTHY)
            first = records.recall(home, "one")
            assert first is not None
            first.send(signal.SIGKILL)
            await until(lambda: boss.status["one"].restarts == 1 and phase(boss, "one") is Phase.HEALTHY)
            assert records.recall(home, "one") not in (None, first)

    asyncio.run(scenario())


def test_a_failed_preparation_is_told_and_tried_again(home: Home) -> None:
    """Whatever a preparation raises, the supervisor lives on and says why."""
    failures = iter([OSError("disk on fire")])

    def prepare() -> None:
        for failure in failures:
            raise failure

    async def scenario() -> None:
        want(home, "one")
        async with supervised(home, sleeper(home, "one", prepare=prepare)) as boss:
            await until(lambda: phase(boss, "one") is Phase.BACKOFF)
            assert "disk on fire" in boss.status["one"].detail
            await until(lambda: phase(boss, "one") is Phase.HEALTHY)

    asyncio.run(scenario())


def test_a_task_is_done_at_exit_0_and_repeated_otherwise(home: Home) -> None:
    """Exit 3 first, then 0: what needs the task starts after the second run."""
    flag = home.path / "flag"
    code = f"import os, sys; seen = os.path.exists({str(flag)!r}); open({str(flag)!r}, 'w'); sys.exit(0 if seen else 3)"

    async def scenario() -> None:
        want(home, "top")
        async with supervised(home, sleeper(home, "task", code=code, healthy=None), sleeper(home, "top", "task")) as boss:
            await until(lambda: phase(boss, "top") is Phase.HEALTHY)
            assert phase(boss, "task") is Phase.DONE
            assert boss.status["task"].restarts == 1

    asyncio.run(scenario())


def test_a_killed_supervisors_services_are_adopted(home: Home) -> None:
    """The next supervisor finds the same process and starts no second one; when that dies it is restarted."""

    async def scenario() -> None:
        want(home, "one")
        async with supervised(home, sleeper(home, "one")) as boss:
            await until(lambda: phase(boss, "one") is Phase.HEALTHY)
        before = records.recall(home, "one")
        assert before is not None
        async with supervised(home, sleeper(home, "one")) as heir:
            await until(lambda: phase(heir, "one") is Phase.HEALTHY)
            assert records.recall(home, "one") == before
            before.send(signal.SIGKILL)
            await until(lambda: heir.status["one"].restarts == 1 and phase(heir, "one") is Phase.HEALTHY)

    asyncio.run(scenario())


def test_what_was_started_with_other_code_is_started_again(home: Home) -> None:
    """What keeps no state, and only its own process: not the children that it has; the rest is adopted. Once."""
    deaf = "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); subprocess.Popen(['sleep', '60'], start_new_session=True)"
    deaf += "; time.sleep(60)"
    services = (sleeper(home, "store"), sleeper(home, "agent", code=deaf, stateless=True, grace_seconds=0.3))

    async def scenario() -> None:
        want(home, "store", "agent")
        async with supervised(home, *services, made_of="old") as boss:
            await until(lambda: all(phase(boss, s.name) is Phase.HEALTHY for s in services))
            store, agent = records.recall(home, "store"), records.recall(home, "agent")
            assert store is not None and agent is not None
            await until(lambda: len(family([agent])) == 2)
            (child,) = [p for p in family([agent]) if p != agent]
        try:
            async with supervised(home, *services, made_of="new") as heir:
                await until(lambda: not agent.alive and phase(heir, "agent") is Phase.HEALTHY)
                again = records.recall(home, "agent")
                assert again not in (None, agent) and heir.status["agent"].restarts == 0
                assert records.recall(home, "store") == store and child.alive
            async with supervised(home, *services, made_of="new") as heir:
                await until(lambda: phase(heir, "agent") is Phase.HEALTHY)
                assert records.recall(home, "agent") == again
        finally:
            end([child], grace_seconds=0)

    asyncio.run(scenario())


def test_more_services_can_be_wanted_later(home: Home) -> None:
    """A second `apply` starts what is new and leaves the rest alone."""

    async def scenario() -> None:
        want(home, "one")
        async with supervised(home, sleeper(home, "one"), sleeper(home, "two")) as boss:
            await until(lambda: phase(boss, "one") is Phase.HEALTHY)
            assert "two" not in boss.status
            first = records.recall(home, "one")
            want(home, "one", "two", serial=2)
            boss.apply()
            await until(lambda: phase(boss, "two") is Phase.HEALTHY)
            assert records.recall(home, "one") == first
            assert json.loads(home.state_file.read_text())["serial"] == 2

    asyncio.run(scenario())


def test_all_is_stopped_in_reverse_order(home: Home) -> None:
    """What needs another is gone before that gets its signal; what ignores the signal is killed after its grace."""
    stopped: list[str] = []
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"

    def note(name: str) -> Callable[[], None]:
        return lambda: stopped.append(f"{name} while {sorted(records.living(home))} live")

    async def scenario() -> None:
        want(home, "top")
        services = [
            sleeper(home, "base", before_stop=note("base")),
            sleeper(home, "middle", "base", code=stubborn, grace_seconds=0.3, before_stop=note("middle")),
            sleeper(home, "top", "middle", before_stop=note("top")),
        ]
        async with supervised(home, *services) as boss:
            await until(lambda: phase(boss, "top") is Phase.HEALTHY)
            await boss.stop()

    asyncio.run(scenario())
    assert stopped == ["top while ['base', 'middle', 'top'] live", "middle while ['base', 'middle'] live", "base while ['base'] live"]
    assert records.living(home) == {}


def test_a_service_that_stops_answering_is_shown_and_not_restarted(home: Home) -> None:
    """Not answering is not being dead: the process keeps its pid, the state says what was seen."""
    answers = True

    async def check(_: datetime) -> None:
        if not answers:
            raise Unhealthy("no answer in 5 s")

    async def scenario() -> None:
        nonlocal answers
        want(home, "one")
        async with supervised(home, sleeper(home, "one", healthy=check)) as boss:
            await until(lambda: phase(boss, "one") is Phase.HEALTHY)
            before = records.recall(home, "one")
            answers = False
            await until(lambda: phase(boss, "one") is Phase.UNHEALTHY)
            assert boss.status["one"].detail == "no answer in 5 s"
            assert records.recall(home, "one") == before
            answers = True
            await until(lambda: phase(boss, "one") is Phase.HEALTHY)

    asyncio.run(scenario())


def test_a_task_at_work_survives_the_crash_of_its_service(home: Home) -> None:
    """After a crash the idle rest of the session is ended; a process with a child of its own and that child are not, until it has ended."""
    idle = "import time; time.sleep(60)"
    busy = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {idle!r}]); {idle}"
    pids = home.path / "pids"
    code = (
        f"import os, subprocess, sys, time; first = not os.path.exists({str(pids)!r});"
        f"p = [subprocess.Popen([sys.executable, '-c', c]).pid for c in ({idle!r}, {busy!r}) if first];"
        f"first and open({str(pids)!r}, 'w').write(' '.join(map(str, p))); time.sleep(60)"
    )

    async def scenario() -> None:
        want(home, "one")
        async with supervised(home, sleeper(home, "one", code=code)) as boss:
            await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
            first = records.recall(home, "one")
            assert first is not None
            await until(lambda: len(sessions.members(first)) == 4)
            idle_pid, busy_pid = map(int, pids.read_text().split())
            first.send(signal.SIGKILL)
            await until(lambda: boss.status["one"].restarts == 1 and phase(boss, "one") is Phase.HEALTHY)
            left = sessions.members(first)
            assert {p.pid for p in left} > {busy_pid}
            assert idle_pid not in {p.pid for p in left}
            end([p for p in left if p.pid != busy_pid], grace_seconds=0)
            await until(lambda: supervisor.end_idle(first) == 0 and not sessions.members(first))

    asyncio.run(scenario())


def test_who_got_the_pid_of_a_dead_service_is_left_alone() -> None:
    """A pid that was used again names another process, with a session of its own."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as stranger:
        now = ProcessId.of(stranger.pid)
        assert now is not None
        assert supervisor.end_idle(ProcessId(now.pid, now.start - 1)) == 0
        assert now.alive
        stranger.kill()


def test_old_task_logs_are_forgotten(tmp_path: Path) -> None:
    """Files of the last days stay, and so do folders."""
    old, recent = tmp_path / "dag" / "old.log", tmp_path / "dag" / "recent.log"
    old.parent.mkdir()
    for path, age_days in ((old, 8), (recent, 6)):
        path.touch()
        os.utime(path, (time.time() - age_days * 86400,) * 2)
    supervisor.forget_old_files(tmp_path, days=7)
    assert [path.name for path in old.parent.iterdir()] == ["recent.log"]


def test_a_record_of_an_earlier_boot_is_nobody(home: Home) -> None:
    """After a reboot the same pid and start time may belong to anybody."""
    me = ProcessId.of(os.getpid())
    assert me is not None
    records.remember(home, "one", me, "")
    assert records.recall(home, "one") == me
    path = home.services / "one.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))
    assert records.recall(home, "one") is None


def test_a_log_is_rotated_under_its_writer(tmp_path: Path) -> None:
    """The writer goes on in the emptied file; what it wrote before is kept once."""
    log = tmp_path / "kafka.log"
    with log.open("a") as writer:
        writer.write("x" * 100)
        writer.flush()
        rotate(log, 200)
        assert log.stat().st_size == 100
        rotate(log, 50)
        writer.write("after")
    assert log.read_text() == "after"
    assert (tmp_path / "kafka.log.1").read_text() == "x" * 100
