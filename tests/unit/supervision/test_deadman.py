"""When people are told that nobody watches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from k2.registry.platform import DeadMan
from k2.supervision.deadman import Silence, Step, step

RULES = DeadMan(silent_seconds=120, runs_silent_seconds=360, first_look_seconds=300, repeat_minutes=30)


@pytest.mark.parametrize(
    ("looked", "told", "now", "expected"),
    [
        (None, None, 299, Step.NONE),
        (None, None, 300, Step.PAGE),
        (10, None, 129, Step.NONE),
        (10, None, 130, Step.PAGE),
        (10, 130, 1929, Step.NONE),
        (10, 130, 1930, Step.REMIND),
        (None, 300, 2100, Step.REMIND),
        (140, 130, 150, Step.RESOLVE),
        (140, 130, 260, Step.REMIND if 260 - 130 >= 1800 else Step.NONE),
        (100, 130, 150, Step.NONE),
    ],
)
def test_steps(looked: float | None, told: float | None, now: float, expected: Step) -> None:
    """Paged once when the limit is reached, reminded after half an hour, resolved by a look after that."""
    assert step(RULES, Silence(0, looked, looked, told), now) is expected


@pytest.mark.parametrize(
    ("ran", "told", "now", "expected"),
    [
        (None, None, 359, Step.NONE),
        (None, None, 360, Step.PAGE),
        (100, None, 459, Step.NONE),
        (100, None, 460, Step.PAGE),
        (100, 460, 500, Step.NONE),
        (495, 460, 500, Step.RESOLVE),
    ],
)
def test_a_poll_that_looks_does_not_act(ran: float | None, told: float | None, now: float, expected: Step) -> None:
    """Looks of the poll alone keep nobody from being told that no run has come for six minutes."""
    assert step(RULES, Silence(0, now - 1, ran, told), now) is expected


def follow(events: list[tuple[float, bool]]) -> list[tuple[float, Step]]:
    """What is told over turns: seconds since the one before, and whether somebody looked just then."""
    silence, now, told = Silence(0), 0.0, []
    for seconds, looks in events:
        now += seconds
        if looks:
            silence = replace(silence, looked=now, ran=now)
        if (due := step(RULES, silence, now)) is not Step.NONE:
            told.append((now, due))
            silence = replace(silence, told=None if due is Step.RESOLVE else now)
    return told


TURNS = st.lists(st.tuples(st.floats(0.1, 400), st.booleans()), max_size=60)


@given(TURNS)
def test_pages_and_resolutions_alternate(events: list[tuple[float, bool]]) -> None:
    """No page twice without a resolution between, no reminder without a page, none sooner than half an hour after the last word."""
    open_since: float | None = None
    for now, due in follow(events):
        if due is Step.PAGE:
            assert open_since is None
        else:
            assert open_since is not None and (due is Step.RESOLVE or now - open_since >= 1800)
        open_since = None if due is Step.RESOLVE else now


@given(st.lists(st.floats(0.1, 119), min_size=1, max_size=60))
def test_who_looks_often_enough_is_never_paged(pauses: list[float]) -> None:
    """Whatever the rhythm."""
    assert follow([(pause, True) for pause in pauses]) == []


@given(TURNS, st.floats(360, 5000))
def test_a_silence_is_always_told(events: list[tuple[float, bool]], seconds: float) -> None:
    """After any history, the next turn after the limit finds people told."""
    told = follow([*events, (seconds, False)])
    assert told and told[-1][1] is not Step.RESOLVE


def test_rules_that_contradict_each_other_are_refused() -> None:
    """The first look may not be expected sooner than later ones."""
    with pytest.raises(ValidationError, match="first_look_seconds must not be below silent_seconds"):
        DeadMan(silent_seconds=120, runs_silent_seconds=360, first_look_seconds=60, repeat_minutes=30)
    with pytest.raises(ValidationError, match="runs_silent_seconds must not be below silent_seconds"):
        DeadMan(silent_seconds=200, runs_silent_seconds=150, first_look_seconds=300, repeat_minutes=30)
