"""Sources that are read side by side, and what of each may go wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from k2.probes import following as module
from k2.probes.following import Following
from k2.probes.observer import Progress
from k2.registry.observed import Checkpoint, Driver, DriverState, Head, QueryStatus, Reading

NOW = datetime.now(UTC)
TOPIC, TABLE, OTHER = "bronze", "silver", "silver_too"
RUNNING = Reading(NOW, Driver(DriverState.RUNNING, fence=1))
CHECKPOINT = Checkpoint("q", 1, 1, NOW, {})
HEAD = Head({}, 0, 0.0)


def word(waits_for: str | None = None) -> Reading[QueryStatus]:
    return Reading(NOW, QueryStatus("-", 1, "q", "r", 1, "-", "running", waits_for, NOW, None, None))


class World:
    """Stands for the observer's clients: each source answers, waits for its event, or raises."""

    def __init__(self) -> None:
        self.runtime = SimpleNamespace(platform=SimpleNamespace(streams={n: SimpleNamespace(reads=None if n == TOPIC else "t") for n in (TOPIC, TABLE, OTHER)}))
        self.words: dict[str, Reading[QueryStatus]] = {}
        self.broken: set[str] = set()
        self.holds: dict[str, threading.Event] = {}
        self.asked: list[tuple[str, list[str]]] = []

    def _answer(self, source: str, names: Any) -> None:
        self.asked.append((source, sorted(names)))
        if source in self.holds:
            assert self.holds[source].wait(5)
        if source in self.broken:
            raise RuntimeError(f"{source} broke")

    def as_they_come(self, newest: Mapping[str, Any]) -> Iterator[tuple[str, Reading[QueryStatus]]]:
        for name in newest:
            self._answer(f"word of {name}", [name])
            yield name, self.words.get(name, word())

    def checkpoints(self, names: Any) -> dict[str, Reading[Checkpoint]]:
        self._answer("checkpoints", names)
        return {name: Reading(NOW, CHECKPOINT) for name in names}

    def kafka_heads(self, checkpoints: Any) -> dict[str, Reading[Head]]:
        self._answer("topics", checkpoints)
        return {name: Reading(NOW, HEAD) for name in checkpoints}

    def table_heads(self, checkpoints: Any) -> dict[str, Reading[Head]]:
        self._answer("tables", checkpoints)
        return {name: Reading(NOW, HEAD) for name in checkpoints}

    def registry(self, words: Any) -> Reading[bool] | None:
        return Reading(NOW, error="refused") if list(words) else None

    def close(self) -> None:
        self.asked.append(("close", []))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(module, "as_they_come", made.as_they_come)
    return made


@pytest.fixture
def following(world: World) -> Iterator[Following]:
    made = Following(world)  # type: ignore[arg-type]
    yield made
    for hold in world.holds.values():
        hold.set()
    made.close()


def until(following: Following, names: set[str]) -> dict[str, Progress]:
    """What is taken until all of these streams came."""
    found: dict[str, Progress] = {}
    deadline = time.monotonic() + 5
    while not names <= found.keys():
        assert time.monotonic() < deadline, f"only {set(found)} came"
        found |= following.take()
        time.sleep(0.005)
    return found


def asks(*names: str) -> dict[str, Reading[Driver]]:
    return dict.fromkeys(names, RUNNING)


def test_every_source_is_read_and_brought_once(world: World, following: Following) -> None:
    """A stream comes when its last source has answered, and does not come again by itself."""
    following.ask(asks(TOPIC, TABLE))
    found = until(following, {TOPIC, TABLE})
    assert found == {name: Progress(word(), Reading(NOW, CHECKPOINT), Reading(NOW, HEAD)) for name in (TOPIC, TABLE)}
    time.sleep(0.02)
    assert following.take() == {}


@pytest.mark.parametrize("source", ["topics", f"word of {TOPIC}"])
def test_a_source_that_is_slow_delays_only_its_own(world: World, following: Following, source: str) -> None:
    """A silent broker, or a frozen driver: streams that were asked about later come at once, and it is not asked twice."""
    world.holds[source] = threading.Event()
    following.ask(asks(TOPIC))
    for _ in range(3):
        following.ask(asks(TOPIC, TABLE, OTHER))
        assert until(following, {TABLE, OTHER}).keys() == {TABLE, OTHER}
    assert sum(asked == source for asked, _ in world.asked) == 1
    world.holds[source].set()
    assert until(following, {TOPIC}).keys() == {TOPIC}


@pytest.mark.parametrize(("source", "part"), [("checkpoints", "checkpoint"), ("tables", "head"), ("topics", "head"), (f"word of {OTHER}", "status")])
def test_what_nobody_thought_of_is_an_answer(world: World, following: Following, source: str, part: str) -> None:
    """A source that raises leaves readings with the reason, and is asked again the next time."""
    world.broken.add(source)
    following.ask(asks(TOPIC, TABLE, OTHER))
    found = until(following, {TOPIC, TABLE, OTHER})
    reasons = {getattr(progress, part).error for progress in found.values()}
    assert f"RuntimeError: {source} broke" in reasons
    world.broken.clear()
    following.ask(asks(TOPIC, TABLE, OTHER))
    assert all(getattr(progress, part).known for progress in until(following, {TOPIC, TABLE, OTHER}).values())


def test_the_registry_is_asked_for_those_that_wait_for_it(world: World, following: Following) -> None:
    """Its answer comes with them alone, and goes when they wait no longer."""
    world.words[TABLE] = word("schema_registry")
    following.ask(asks(TABLE, OTHER))
    found = until(following, {TABLE, OTHER})
    assert found[TABLE].registry == Reading(NOW, error="refused") and found[OTHER].registry is None
    world.words.clear()
    following.ask(asks(TABLE))
    assert until(following, {TABLE})[TABLE].registry is None


def test_what_waits_is_read_together(world: World) -> None:
    """While the thread of a source is busy, streams gather and are read in one go, each once."""
    done: list[Callable[[], None]] = []

    class Later:
        def __init__(self, *_: Any) -> None:
            pass

        def submit(self, work: Callable[..., None], *arguments: Any) -> None:
            done.append(lambda: work(*arguments))

        def shutdown(self, **_: Any) -> None:
            pass

    following = Following(world, Later)  # type: ignore[arg-type]
    for name in (TABLE, OTHER, TABLE):
        following.ask(asks(name))
    while done:
        done.pop(0)()
    assert [asked for asked in world.asked if asked[0] == "checkpoints"] == [("checkpoints", sorted((OTHER, TABLE)))]
    assert following.take().keys() == {TABLE, OTHER}
