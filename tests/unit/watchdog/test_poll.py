"""The watchdog's shell with everything around it told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
from k2.registry.observed import Action, Driver, QueryStatus, Reading, Verdict
from k2.registry.platform import load_platform
from k2.state.database import StateUnavailable
from k2.watchdog import judged as judged_module
from k2.watchdog import poll as poll_module
from k2.watchdog import recording

from .readings import CHECKPOINT, DEAD, DRIVER, HEAD, WANTED, A, B


def word(fence: int, at: datetime) -> QueryStatus:
    """Of a driver that is well."""
    return QueryStatus("-", fence, "q", "r", 3, "Waiting for data to arrive", "running", None, at, 0.4, 0)


JUDGE = judged_module.judge


class Clocks:
    """A wall clock that can be set, and time that passes."""

    def __init__(self) -> None:
        self.set_by = timedelta(0)
        self.passed = 0.0

    def wall(self) -> datetime:
        return datetime.now(UTC) + self.set_by + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return time.monotonic() + self.passed


def runtime(tmp_path: Path) -> Any:
    platform = load_platform()
    platform = platform.model_copy(update={"streams": {name: platform.streams[name] for name in (A, B)}})
    return SimpleNamespace(platform=platform, checkpoint=lambda stream: tmp_path / stream)


class World:
    """Stands for the observer and for what follows the queries: what it holds is what they see; it remembers what the poll wrote and asked.

    `changed` is what the observer says of changes; None for not known.
    """

    def __init__(self) -> None:
        self.clocks = Clocks()
        self.wanted: dict[str, Any] = {A: WANTED, B: WANTED}
        self.drivers: dict[str, Any] = {A: DRIVER, B: DRIVER}
        self.head: Any = HEAD
        self.progress_calls: list[list[str]] = []
        self.version: int | None = 1
        self.written: list[Any] = []
        self.state = SimpleNamespace(ask=self.ask)
        self.away: Exception | None = None
        self.refused: str | None = None
        self.slow = threading.Event()
        self.slow.set()
        self.thread: ThreadPoolExecutor | None = None
        self.changed: set[str] | None = None
        self.quiet_since: datetime | None = None
        self.brought: list[Future[dict[str, Progress]]] = []
        self.waits: list[tuple[int | None, float]] = []
        self.closed = 0

    def reading(self, value: Any) -> Reading[Any]:
        at = self.clocks.wall()
        return Reading(at, error=value) if isinstance(value, str) else Reading(at, value)

    def wait_for_change(self, version: int | None, seconds: float) -> None:
        self.waits.append((version, seconds))

    def changes(self, names: Iterable[str]) -> Quick:
        names = list(names)
        wanted = {name: self.reading(self.wanted[name]) for name in names}
        return Quick(wanted, Drivers({name: self.reading(self.drivers[name]) for name in names}, {}, self.version), self.changed)

    def follow(self, newest: Mapping[str, Reading[Driver]]) -> None:
        if self.thread is None:
            done: Future[dict[str, Progress]] = Future()
            done.set_result(self.progress(newest))
            self.brought.append(done)
        else:
            self.brought.append(self.thread.submit(self.progress, newest))

    def take(self) -> dict[str, Progress]:
        done = [found for found in self.brought if found.done()]
        self.brought = [found for found in self.brought if not found.done()]
        return {name: progress for found in done for name, progress in found.result().items()}

    def progress(self, newest: Mapping[str, Reading[Driver]]) -> dict[str, Progress]:
        self.progress_calls.append(sorted(newest))
        assert self.slow.wait(5)
        at = self.clocks.wall()
        event = self.quiet_since or at
        words = {name: self.reading("no word" if found.value is None else word(found.value.fence, event)) for name, found in newest.items()}
        return {name: Progress(words[name], self.reading(CHECKPOINT), self.reading(self.head)) for name in newest}

    def write(self, looks: Iterable[Any]) -> None:
        seen = {found.decision.stream: found.decision.verdict for found in looks}
        if self.refused in seen:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        self.written.append(seen)

    def ask(self, question: Callable[[Any], Any]) -> Any:
        if self.away:
            raise self.away
        return question(self)

    def close(self) -> None:
        self.closed += 1


def following(world: World) -> Any:
    return SimpleNamespace(ask=world.follow, take=world.take, close=world.close)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(poll_module, "MemoryWatch", lambda *_: SimpleNamespace(look=lambda *_: None))
    monkeypatch.setattr(recording, "record", lambda world, runtime, looks, at: world.write(looks))
    monkeypatch.setattr(poll_module.watchers, "looked", lambda world, who, detail: world.written.append((who, detail)))
    return made


@pytest.fixture
def poll(world: World, tmp_path: Path) -> Iterator[watchdog.Poll]:
    made = watchdog.Poll(runtime(tmp_path), world, following(world), world.clocks.wall, world.clocks.monotonic)
    world.clocks.passed += 0.1  # first readings of two streams lie a hundredth apart
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
    before = world.clocks.wall()
    (waiting,) = poll.tick()
    assert (waiting.stream, waiting.verdict, waiting.action) == (A, Verdict.DEAD, Action.WAIT)
    assert waiting.detected_at is not None and before <= waiting.detected_at <= world.clocks.wall()
    assert fire(poll) == []
    world.drivers[A] = replace(DEAD, ended_at=datetime.now(UTC) - timedelta(minutes=1))
    (due,) = poll.tick()
    assert (due.action, due.detected_at) == (Action.START, waiting.detected_at)
    assert fire(poll) == []


def test_a_slow_source_delays_no_death(world: World, tmp_path: Path) -> None:
    """While Kafka keeps a reading waiting, ticks go on and a death is reported."""
    world.thread = ThreadPoolExecutor(1)
    poll = watchdog.Poll(runtime(tmp_path), world, following(world))
    world.slow.clear()
    time.sleep(0.02)
    fire(poll)
    world.drivers[A] = DEAD
    assert fire(poll) == [(A, Verdict.DEAD, Action.START)]
    assert fire(poll) == [] and len(world.progress_calls) == 1
    world.slow.set()
    world.thread.shutdown()
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


def test_a_look_that_cannot_be_written_keeps_no_other_from_it(poll: watchdog.Poll, world: World) -> None:
    """What the database refuses of one stream is left out; the other's death is written, and the poll says that it lives."""
    fire(poll)
    world.refused, world.drivers[B] = A, DEAD
    world.drivers[A] = DEAD
    world.written.clear()
    assert sorted(fire(poll)) == [(A, Verdict.DEAD, Action.START), (B, Verdict.DEAD, Action.START)]
    assert {B: Verdict.DEAD} in world.written and not any(A in seen for seen in world.written if isinstance(seen, dict))
    world.clocks.passed += poll_module.HEARTBEAT_SECONDS
    fire(poll)
    assert ("poll", "") in world.written


def test_a_stream_that_cannot_be_judged_is_unknown_and_the_other_is_judged(poll: watchdog.Poll, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in judging is told as what cannot be known, of that stream alone."""
    fire(poll)

    def judge(spec: Any, observation: Any, restart: Any, now: datetime) -> Any:
        if observation.stream == A:
            raise ZeroDivisionError("division by zero")
        return JUDGE(spec, observation, restart, now)

    monkeypatch.setattr(judged_module, "judge", judge)
    world.drivers[B] = DEAD
    assert fire(poll) == [(B, Verdict.DEAD, Action.START)]
    assert {A: Verdict.UNKNOWN, B: Verdict.DEAD}.items() <= {k: v for seen in world.written if isinstance(seen, dict) for k, v in seen.items()}.items()


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


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The streams that were judged, in order."""
    found: list[str] = []
    real = poll_module.examine

    def examine(runtime: Any, seen: Any, at: datetime) -> Any:
        found.append(seen.stream)
        return real(runtime, seen, at)

    monkeypatch.setattr(poll_module, "examine", examine)
    return found


def test_what_is_well_is_judged_when_something_is_new(poll: watchdog.Poll, world: World, judged: list[str]) -> None:
    """A tick that brings nothing judges nobody; a change judges its stream, a period without one judges all."""
    fire(poll), fire(poll), fire(poll)
    world.changed = set()
    judged.clear()
    assert fire(poll) == [] and judged == []
    world.changed, world.drivers[A] = {A}, replace(DEAD, ended_at=datetime.now(UTC) - timedelta(minutes=1))
    assert fire(poll) == [(A, Verdict.DEAD, Action.START)] and judged == [A]
    world.changed = set()
    fire(poll), fire(poll)
    assert judged.count(A) == 3 and judged.count(B) == 0, "who is not well is judged on every tick"
    world.clocks.passed += 10
    fire(poll)
    assert judged.count(B) == 1


def test_a_hang_is_found_on_the_tick_on_which_it_is_one(poll: watchdog.Poll, world: World, judged: list[str]) -> None:
    """A stream whose signs of life are late is judged on every tick, with or without news."""
    fire(poll), fire(poll), fire(poll)
    world.changed, world.quiet_since = set(), world.clocks.wall()
    world.clocks.passed += 9
    fire(poll), fire(poll)
    world.clocks.passed += 25
    fire(poll), fire(poll)
    judged.clear()
    fire(poll), fire(poll)
    assert judged.count(A) == 2


def test_readings_are_asked_once_a_period(poll: watchdog.Poll, world: World) -> None:
    """However often the poll looks, a stream is read in its turn, and a turn that was missed is not made up for."""
    for _ in range(5):
        fire(poll)
    world.progress_calls.clear()
    for _ in range(10):
        world.clocks.passed += 3
        fire(poll)
    assert 2 <= sum(A in names for names in world.progress_calls) <= 4
    world.clocks.passed += 100
    fire(poll), fire(poll)
    world.progress_calls.clear()
    fire(poll)
    assert world.progress_calls == []


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_makes_everything_be_read_again(poll: watchdog.Poll, world: World, hours: int) -> None:
    """Nothing is reported, no old reading counts as new or stays old, and a death is told as before."""
    for _ in range(3):
        fire(poll)
    world.progress_calls.clear()
    world.clocks.set_by = timedelta(hours=hours)
    assert fire(poll) == [] and world.progress_calls == [[A, B]]
    assert fire(poll) == []
    assert [step for step in world.written if step.__class__ is dict][-1] == {A: Verdict.IDLE, B: Verdict.IDLE}
    world.drivers[A] = DEAD
    assert fire(poll) == [(A, Verdict.DEAD, Action.START)]


@pytest.mark.parametrize("hours", [1, -1])
def test_silence_is_told_in_time_after_the_clock_was_set(world: World, tmp_path: Path, hours: int) -> None:
    """Half a minute of an unknown stream is half a minute on any clock."""
    poll = watchdog.Poll(runtime(tmp_path), world, following(world), world.clocks.wall, world.clocks.monotonic)
    world.clocks.passed += 0.1
    fire(poll), fire(poll)
    world.drivers[A] = "AgentUnavailable: refused"
    fire(poll)
    world.clocks.set_by = timedelta(hours=hours)
    told = [fire(poll)]
    for _ in range(4):
        world.clocks.passed += 10
        told.append(fire(poll))
    assert sum(len(events) for events in told) == 1
    poll.close()
