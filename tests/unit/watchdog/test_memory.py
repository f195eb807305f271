"""Pages for drivers that run out of memory, with the database told."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from k2.registry.observed import Driver, Reading
from k2.registry.platform import load_platform
from k2.state.database import StateUnavailable
from k2.watchdog import memory
from k2.watchdog.memory import LOOK_EVERY_SECONDS, MemoryWatch

from .readings import DRIVER, A, B

PLATFORM = load_platform()
PLATFORM = PLATFORM.model_copy(update={"streams": {name: PLATFORM.streams[name] for name in (A, B)}})
START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """What is open in the database, and time that passes between two looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open: set[str] = set()
        self.away = False
        self.passed = 0.0
        monkeypatch.setattr(memory.incidents, "open_keys", lambda _: set(self.open))
        monkeypatch.setattr(memory.incidents, "open_incident", lambda _, key, *rest: self.open.add(key))
        monkeypatch.setattr(memory.incidents, "resolve_incident", lambda _, key, how: self.open.discard(key))
        self.watch = self.new_watch()

    def new_watch(self) -> MemoryWatch:
        return MemoryWatch(PLATFORM, SimpleNamespace(ask=self.ask), lambda: self.passed)  # type: ignore[arg-type]

    def ask(self, question: Any) -> Any:
        if self.away:
            raise StateUnavailable("away")
        return question(SimpleNamespace(transaction=nullcontext))

    def look(self, minutes: float, **used: float) -> set[str]:
        """Every ten seconds for so long."""
        drivers: dict[str, Reading[Driver]] = {name: Reading(START, replace(DRIVER, memory_mb=used.get(name, 100.0))) for name in (A, B)}
        for _ in range(int(minutes * 60 / LOOK_EVERY_SECONDS)):
            self.passed += LOOK_EVERY_SECONDS
            self.watch.look(drivers, START + timedelta(seconds=self.passed))
        return self.open


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_driver_that_runs_out_of_memory_pages_until_it_uses_less(world: World) -> None:
    """After ten minutes, once, and for that stream alone; also when the database was away at that moment."""
    much = {A: float(PLATFORM.streams[A].memory_mb)}
    assert world.look(9.9, **much) == set()
    world.away = True
    assert world.look(1, **much) == set()
    world.away = False
    assert world.look(0.2, **much) == {f"memory:{A}"}
    assert world.look(0.2) == set()


def test_another_poll_takes_over_what_was_told(world: World) -> None:
    """It neither ends a page that stands nor needs ten minutes for it, and ends one that does not."""
    world.open = {f"memory:{A}", f"memory:{B}", "stream:x"}
    world.watch = world.new_watch()
    assert world.look(0.2, **{A: float(PLATFORM.streams[A].memory_mb)}) == {f"memory:{A}", "stream:x"}
