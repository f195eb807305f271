"""The watchdog's shell with everything around it told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from k2 import watchdog
from k2.probes.driver import Drivers
from k2.probes.observer import Progress, Quick
from k2.registry.observed import Action, Checkpoint, Driver, DriverState, Head, QueryStatus, Reading, Verdict, Wanted
from k2.registry.platform import load_platform
from k2.state.database import StateUnavailable
from k2.watchdog import poll as poll_module

A, B = "bronze_binance", "bronze_kraken"
LAUNCHED = datetime.now(UTC) - timedelta(minutes=5)
WANTED = Wanted("running", 1, 1, 1, LAUNCHED, LAUNCHED, LAUNCHED, 0)
DRIVER = Driver(DriverState.RUNNING, fence=1, started_at=LAUNCHED)
DEAD = replace(DRIVER, state=DriverState.EXITED, exit_code=-9)
CHECKPOINT = Checkpoint("q", 3, 3, LAUNCHED, {"t": {"0": 1}})
HEAD = Head({"t": {"0": 1}}, 0, 0.0)


def word(fence: int) -> QueryStatus:
    """Of a driver that is well."""
    return QueryStatus("-", fence, "q", "r", 3, "Waiting for data to arrive", "running", None, datetime.now(UTC), 0.4, 0)


def now(value: Any) -> Reading[Any]:
    return Reading(datetime.now(UTC), value)


def silent(why: str) -> Reading[Any]:
    return Reading(datetime.now(UTC), error=why)


def runtime(tmp_path: Path) -> Any:
    platform = load_platform()
    platform = platform.model_copy(update={"streams": {name: platform.streams[name] for name in (A, B)}})
    return SimpleNamespace(platform=platform, checkpoint=lambda stream: tmp_path / stream)


class World:
    """Stands for both observers: what it holds is what they see; it remembers what the poll wrote and how often it read."""

    def __init__(self) -> None:
        self.wanted: dict[str, Any] = {A: WANTED, B: WANTED}
        self.drivers: dict[str, Any] = {A: DRIVER, B: DRIVER}
        self.head: Any = HEAD
        self.progress_calls: list[list[str]] = []
        self.version: int | None = 1
        self.written: list[Any] = []
        self.state = SimpleNamespace(ask=self.ask)
        self.away: Exception | None = None
        self.slow = threading.Event()
        self.slow.set()
        self.waits: list[tuple[int | None, float]] = []
        self.closed = 0

    def wait_for_change(self, version: int | None, seconds: float) -> None:
        self.waits.append((version, seconds))

    def quick(self, names: Iterable[str]) -> Quick:
        def reading(value: Any) -> Reading[Any]:
            return silent(value) if isinstance(value, str) else now(value)

        wanted = {name: reading(self.wanted[name]) for name in names}
        return Quick(wanted, Drivers({name: reading(self.drivers[name]) for name in names}, {}, self.version))

    def progress(self, newest: Mapping[str, Reading[Driver]]) -> dict[str, Progress]:
        self.progress_calls.append(sorted(newest))
        assert self.slow.wait(5)
        head = silent(self.head) if isinstance(self.head, str) else now(self.head)
        words = {name: silent("no word") if found.value is None else now(word(found.value.fence)) for name, found in newest.items()}
        return {name: Progress(words[name], now(CHECKPOINT), head) for name in newest}

    def ask(self, question: Callable[[Any], Any]) -> Any:
        if self.away:
            raise self.away
        return question(self)

    def close(self) -> None:
        self.closed += 1


class AtOnce(Executor):
    """An executor that has done what it is given before it returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(poll_module, "record", lambda world, runtime, looks, at: world.written.append({f.decision.stream: f.decision.verdict for f in looks}))
    monkeypatch.setattr(poll_module.watchers, "looked", lambda world, who, detail: world.written.append((who, detail)))
    return made


@pytest.fixture
def poll(world: World, tmp_path: Path) -> Iterator[watchdog.Poll]:
    made = watchdog.Poll(runtime(tmp_path), world, world, AtOnce())
    yield made
    made.close()


def fire(poll: watchdog.Poll) -> list[tuple[str, Verdict, Action]]:
    return [(d.stream, d.verdict, d.action) for d in poll.tick()]


def test_a_healthy_platform_is_silent(poll: watchdog.Poll, world: World) -> None:
    """Nothing is reported, the verdicts are written when they were read, the heart beats once."""
    assert [fire(poll) for _ in range(4)] == [[], [], [], []]
    assert world.progress_calls == [[A, B], [A, B]], "at the first sight, and when the first reading changed the verdicts"
    assert world.written.count(("poll", "")) == 1
    assert world.written[-1] == {A: Verdict.IDLE, B: Verdict.IDLE}
    assert {A: Verdict.UNKNOWN, B: Verdict.UNKNOWN} not in world.written, "what was not read yet is not written as unknown"


def test_a_death_is_reported_with_its_moment(poll: watchdog.Poll, world: World) -> None:
    """The tick that sees it dates it, and the start that is due later carries the same moment."""
    fire(poll), fire(poll)
    world.drivers[A] = replace(DEAD, ended_at=datetime.now(UTC))
    world.wanted[A] = replace(WANTED, deaths=1)
    before = datetime.now(UTC)
    (waiting,) = poll.tick()
    assert (waiting.stream, waiting.verdict, waiting.action) == (A, Verdict.DEAD, Action.WAIT)
    assert waiting.detected_at is not None and before <= waiting.detected_at <= datetime.now(UTC)
    assert fire(poll) == []
    world.drivers[A] = replace(DEAD, ended_at=datetime.now(UTC) - timedelta(minutes=1))
    (due,) = poll.tick()
    assert (due.action, due.detected_at) == (Action.START, waiting.detected_at)
    assert fire(poll) == []


def test_a_slow_source_delays_no_death(world: World, tmp_path: Path) -> None:
    """While Kafka keeps a reading waiting, ticks go on and a death is reported."""
    poll = watchdog.Poll(runtime(tmp_path), world, world, ThreadPoolExecutor(1))
    world.slow.clear()
    fire(poll)
    world.drivers[A] = DEAD
    assert fire(poll) == [(A, Verdict.DEAD, Action.START)]
    assert fire(poll) == [] and len(world.progress_calls) == 1
    world.slow.set()
    poll.close()
    assert world.closed == 2


def test_silent_sources_are_named_and_report_nothing(poll: watchdog.Poll, world: World) -> None:
    """A source that is away makes verdicts unknown for a while, is named with the heartbeat, and comes back without an event."""
    fire(poll), fire(poll)
    world.drivers = dict.fromkeys(world.drivers, "AgentUnavailable: refused")
    assert fire(poll) == []
    assert ("poll", "driver: AgentUnavailable: refused") in world.written
    assert world.written[-2] == {A: Verdict.UNKNOWN, B: Verdict.UNKNOWN}
    world.drivers = {A: DRIVER, B: DRIVER}
    assert fire(poll) == []
    assert world.written[-1] == ("poll", "")


@pytest.mark.parametrize("error", [StateUnavailable("no answer"), psycopg.errors.InsufficientPrivilege("denied")])
def test_a_poll_that_cannot_write_goes_on(poll: watchdog.Poll, world: World, error: Exception) -> None:
    """When nothing can be recorded a death is reported all the same."""
    world.away = error
    fire(poll)
    world.drivers[A] = DEAD
    assert fire(poll) == [(A, Verdict.DEAD, Action.START)]


def test_the_wait_is_the_agents(poll: watchdog.Poll, world: World) -> None:
    """A tick waits for a change of what the last one saw."""
    poll.tick(0.3), poll.tick(0.4)
    assert world.waits == [(None, 0.3), (1, 0.4)]


def test_a_first_commit_is_found_in_the_checkpoint(poll: watchdog.Poll, world: World, tmp_path: Path) -> None:
    """A restart without a commit is looked at on every tick, and its first commit ends the trouble at once."""
    fire(poll), fire(poll)
    world.drivers[A] = DEAD
    fire(poll)
    world.wanted[A] = replace(WANTED, first_commit_at=None, first_commit_batch=None, generation=2, launch_generation=2, fence=2)
    world.drivers[A] = replace(DRIVER, fence=2, started_at=datetime.now(UTC) - timedelta(seconds=5))
    assert fire(poll) == []
    (tmp_path / A / "commits").mkdir(parents=True)
    (tmp_path / A / "offsets").mkdir()
    (tmp_path / A / "offsets" / "4").write_text('v1\n{}\n{"t":{"0":1}}')
    (tmp_path / A / "commits" / "4").write_text("v1\n{}")
    assert fire(poll) == [(A, Verdict.IDLE, Action.NONE)]
