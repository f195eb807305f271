"""The triggers, in a real event loop, over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger, TriggerEvent

from k2.airflow import triggers
from k2.registry.observed import Action, Decision, Verdict
from k2.supervision.wishes import Progress

SOON = 5.0


class FakePoll:
    """Answers each tick with the next of its script; an exception is raised; at the end it finds nothing more."""

    def __init__(self, *script: list[Decision] | Exception) -> None:
        self.script = list(script)
        self.ticks = 0
        self.closed = False

    def tick(self, wait_seconds: float = 0.0) -> list[Decision]:
        self.ticks += 1
        step = self.script.pop(0) if self.script else []
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        self.closed = True


def dead(stream: str) -> Decision:
    return Decision(stream, Verdict.DEAD, Action.START, f"{stream} is gone")


def watch(monkeypatch: pytest.MonkeyPatch, poll: FakePoll) -> AsyncIterator[TriggerEvent]:
    monkeypatch.setattr(triggers, "_new_poll", lambda: poll)
    return triggers.StreamsPollTrigger(interval_seconds=0.001).run()


def in_loop(scenario: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), SOON))


@pytest.mark.parametrize(
    "trigger",
    [
        triggers.StreamsPollTrigger(0.25),
        triggers.WantedReachedTrigger("running", {"bronze_binance": 3}, "2026-11-21T00:00:00+00:00", 0.5, "2026-11-20T23:50:00+00:00"),
    ],
)
def test_serialize_round_trip(trigger: BaseTrigger) -> None:
    """The class path and the arguments make an equal trigger again."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name)(**arguments).serialize() == (path, arguments)


def test_waits_while_nothing_is_due_then_names_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event without a change; one event for all streams that changed at once."""
    poll = FakePoll([])

    async def scenario() -> None:
        events = watch(monkeypatch, poll)
        waiting = asyncio.ensure_future(anext(events))
        while poll.ticks <= 2:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        poll.script.append([dead("bronze_binance"), dead("silver_kraken")])
        event = await waiting
        assert event.payload["streams"] == ["bronze_binance", "silver_kraken"]
        assert event.payload["because"]["silver_kraken"] == "silver_kraken is gone"
        assert datetime.fromisoformat(event.payload["at"]).tzinfo is not None
        await events.aclose()  # type: ignore[attr-defined]

    in_loop(scenario)
    assert poll.closed


def test_survives_failures_backs_off_and_tells_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing poll never ends the trigger; after three failures in a row one event asks for a look in its stead."""
    waits: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real_sleep(0)

    poll = FakePoll(*(ConnectionError("away") for _ in range(5)), [dead("bronze_kraken")])
    noted: list[str] = []
    monkeypatch.setattr(triggers, "_say_failing", noted.append)

    async def scenario() -> None:
        monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
        events = watch(monkeypatch, poll)
        blind = await anext(events)
        assert blind.payload["streams"] == [] and "ConnectionError: away" in blind.payload["because"]["poll"]
        seeing = await anext(events)
        assert seeing.payload["streams"] == ["bronze_kraken"]
        await events.aclose()  # type: ignore[attr-defined]

    in_loop(scenario)
    assert waits[:5] == [0.001 * 2**n for n in range(1, 6)]
    assert [why.partition(" polls")[0] for why in noted] == ["3", "4", "5"], "it says that it backs off, with the reason"
    assert all("ConnectionError: away" in why for why in noted)


def test_a_note_that_cannot_be_left_ends_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a runtime there is nowhere to write to."""
    monkeypatch.delenv("K2_RUNTIME", raising=False)
    triggers._say_failing("3 polls in a row failed")


def test_a_poll_that_cannot_be_made_is_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without K2_RUNTIME, or with the registry broken for a moment, the trigger keeps trying."""
    polls: list[Any] = [RuntimeError("K2_RUNTIME names no file"), FakePoll([dead("bronze_binance")])]

    def make() -> FakePoll:
        made = polls.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    async def scenario() -> None:
        monkeypatch.setattr(triggers, "_new_poll", make)
        events = triggers.StreamsPollTrigger(interval_seconds=0.001).run()
        assert (await anext(events)).payload["streams"] == ["bronze_binance"]
        await events.aclose()  # type: ignore[attr-defined]

    in_loop(scenario)


def test_backoff_has_a_cap() -> None:
    """However long the database is away, the poll looks again within a minute."""
    assert min(triggers.BACKOFF_CAP_SECONDS, 0.5 * 2**40) == 60.0


def reach(monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Progress] | Exception], *, seconds: float) -> dict[str, Any]:
    def read(desired: str, wants: dict[str, int], since: datetime | None) -> dict[str, Progress]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(triggers, "_read_progress", read)
    deadline = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    trigger = triggers.WantedReachedTrigger("running", {"a": 1, "b": 1}, deadline, interval_seconds=0.001)

    async def first() -> TriggerEvent:
        return await anext(aiter(trigger.run()))

    return asyncio.run(asyncio.wait_for(first(), SOON)).payload


WAITING = Progress(False, False, "launched, no commit yet")
REACHED = Progress(True, True, "committed")
LOST = Progress(False, True, "a later request wants it stopped")


def test_wish_is_reached_when_every_stream_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the last one, through a database that is away for a moment."""
    answers: list[Any] = [{"a": WAITING, "b": REACHED}, ConnectionError("away"), {"a": REACHED, "b": REACHED}]
    assert reach(monkeypatch, answers, seconds=60) == {"reached": {"a": "committed", "b": "committed"}, "missing": {}}
    assert len(answers) == 1


def test_wish_ends_at_the_deadline_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that does not come up is named with what was last known of it."""
    assert reach(monkeypatch, [{"a": WAITING, "b": REACHED}], seconds=0.05) == {"reached": {"b": "committed"}, "missing": {"a": "launched, no commit yet"}}


def test_wish_that_was_overtaken_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """An opposite request ends the wait at once."""
    assert reach(monkeypatch, [{"a": LOST, "b": REACHED}], seconds=3600)["missing"] == {"a": "a later request wants it stopped"}


def test_database_away_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be known is not reached."""
    payload = reach(monkeypatch, [ConnectionError("away")], seconds=0.02)
    assert payload["reached"] == {} and "ConnectionError: away" in payload["missing"]["a"]
