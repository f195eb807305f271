"""A change is reported once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Action, Checkpoint, Decision, Observation, QueryStatus, Reading, Verdict
from k2.registry.platform import load_platform
from k2.supervision.edges import UNKNOWN_LASTS, Mark, edges, rest
from k2.supervision.verdicts import ACTS

T0 = datetime(2026, 1, 1, tzinfo=UTC)
S = "silver_kraken"

IDLE = Decision(S, Verdict.IDLE, Action.NONE, "-", fence=3, generation=1)
PROGRESSING = replace(IDLE, verdict=Verdict.PROGRESSING)
STARTING = replace(IDLE, verdict=Verdict.STARTING)
DEAD = replace(IDLE, verdict=Verdict.DEAD, action=Action.START)
WAITING = replace(DEAD, action=Action.WAIT, not_before=T0)
UNKNOWN = Decision(S, Verdict.UNKNOWN, Action.NONE, "-")


def run(*decisions: Decision, step: float = 0.5) -> list[bool]:
    """Whether each decision of a sequence, `step` seconds apart, is reported."""
    marks: dict[str, Mark] = {}
    told = []
    for number, decision in enumerate(decisions):
        fired, marks = edges(marks, {S: decision}, T0 + timedelta(seconds=number * step))
        assert fired in ([], [decision])
        told.append(bool(fired))
    return told


def test_health_is_no_event() -> None:
    """A stream that is well when first seen, and that goes between idle and progressing, is never reported."""
    assert run(IDLE, PROGRESSING, IDLE, PROGRESSING) == [False] * 4


def test_a_need_for_action_is_an_event_at_first_sight() -> None:
    """A poll that has just begun reports what must be done, once."""
    assert run(DEAD, DEAD, DEAD) == [True, False, False]


def test_an_action_that_stays_due_is_an_event_again() -> None:
    """What was in its way, such as a broker that could not be asked, may be gone; a wait is not repeated."""
    assert run(DEAD, DEAD, DEAD, DEAD, DEAD, step=5.0) == [True, False, False, True, False]
    assert run(DEAD, UNKNOWN, UNKNOWN, DEAD, DEAD, step=5.0) == [True, False, False, True, False]
    assert run(WAITING, WAITING, WAITING, step=60.0) == [False, False, False]


def test_death_and_recovery() -> None:
    """Death is told, the start in between is not, the first commit is."""
    risen = replace(STARTING, fence=4)
    assert run(IDLE, DEAD, DEAD, risen, risen, replace(IDLE, fence=4), replace(IDLE, fence=4)) == [False, True, False, False, False, True, False]


def test_backoff() -> None:
    """Death with a wait is told, then silence, then the start when it is due."""
    assert run(IDLE, WAITING, WAITING, DEAD, DEAD) == [False, True, False, True, False]


def test_a_second_death_is_another_event() -> None:
    """The same verdict with another fence or generation is news."""
    assert run(IDLE, DEAD, replace(DEAD, fence=4)) == [False, True, True]
    assert run(IDLE, WAITING, replace(WAITING, fence=4), replace(WAITING, fence=4, generation=2)) == [False, True, True, True]


def test_requests() -> None:
    """Each request of a person is told once. That it was carried out is no news: whoever asked for it waits for it."""
    stop = replace(IDLE, verdict=Verdict.STOPPING, action=Action.STOP, generation=2)
    stopped = replace(IDLE, verdict=Verdict.STOPPED, generation=2)
    start = replace(STARTING, action=Action.START, generation=3)
    assert run(IDLE, stop, stop, stopped, start, start, IDLE) == [False, True, False, False, True, False, False]
    assert run(IDLE, DEAD, stopped, start, IDLE) == [False, True, False, True, False]


def test_a_short_silence_is_no_event() -> None:
    """Unknown in between is neither a change nor does it make the verdict after it one."""
    assert run(IDLE, UNKNOWN, IDLE) == [False, False, False]
    assert run(DEAD, UNKNOWN, DEAD) == [True, False, False]
    assert run(UNKNOWN, IDLE) == [False, False]
    assert run(UNKNOWN, DEAD) == [False, True]
    assert run(IDLE, UNKNOWN, DEAD) == [False, False, True]


@pytest.mark.parametrize("before", [IDLE, DEAD, None])
def test_a_lasting_silence_is_an_event(before: Decision | None) -> None:
    """Unknown is told once when it has lasted, and so is its end."""
    lasting = [UNKNOWN] * (int(UNKNOWN_LASTS.total_seconds() / 10) + 3)
    told = run(*([before] if before else []), *lasting, IDLE, step=10)
    assert sum(told[-len(lasting) - 1 : -1]) == 1
    assert told[-2:] == [False, True]


decisions = st.builds(
    Decision,
    stream=st.just(S),
    verdict=st.sampled_from(Verdict),
    action=st.sampled_from(Action),
    because=st.just("-"),
    fence=st.integers(0, 2),
    generation=st.integers(0, 2),
)


@given(st.lists(decisions, max_size=12))
def test_nothing_is_told_twice_and_no_due_action_is_lost(sequence: list[Decision]) -> None:
    """A repeated decision is silent; a decision to act is told unless the known one before it was the same."""
    known: Decision | None = None
    for index, told in enumerate(run(*sequence)):
        decision = sequence[index]
        if index and sequence[index - 1] == decision:
            assert not told
        if decision.verdict is not Verdict.UNKNOWN:
            if decision.action in ACTS and (
                known is None
                or (known.verdict, known.action, known.fence, known.generation) != (decision.verdict, decision.action, decision.fence, decision.generation)
            ):
                assert told or {decision.verdict, known and known.verdict} == {Verdict.IDLE, Verdict.PROGRESSING}
            known = decision


NOW = T0 + timedelta(days=1)
UNREAD: Reading[Any] = Reading(NOW, error="not read")


def seen(event: float | None, commit: float | None = None, tasks: float | None = None) -> Observation:
    """A stream whose signs of life are these seconds old."""

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else NOW - timedelta(seconds=seconds)

    status = QueryStatus("s", 1, "q", "r", 1, "-", "running", None, at(event), None, None, tasks_at=at(tasks))
    checkpoint = Checkpoint("q", 1, 1, at(commit), {})
    return Observation("s", NOW, UNREAD, UNREAD, Reading(NOW, status), Reading(NOW, checkpoint), UNREAD)


@pytest.mark.parametrize(
    ("trigger", "observation", "verdict", "seconds"),
    [
        (10, seen(0.0), Verdict.IDLE, 10.0),
        (10, seen(20.0), Verdict.PROGRESSING, 2.0),
        (10, seen(25.0), Verdict.PROGRESSING, 0.0),
        (10, seen(None, commit=25.0), Verdict.PROGRESSING, 0.0),
        (10, seen(25.0, tasks=1.0), Verdict.PROGRESSING, 10.0),
        (30, seen(25.0), Verdict.PROGRESSING, 10.0),
        (5, seen(16.0), Verdict.IDLE, 1.0),
        (10, seen(None), Verdict.IDLE, 0.0),
        (10, replace(seen(0.0), status=UNREAD), Verdict.PROGRESSING, 0.0),
        (10, replace(seen(0.0), status=UNREAD), Verdict.STOPPED, 10.0),
        (10, seen(0.0), Verdict.STARTING, 0.0),
        (10, seen(0.0), Verdict.UNKNOWN, 0.0),
        (10, seen(-3600.0), Verdict.IDLE, 10.0),
        (10, seen(3600.0), Verdict.IDLE, 0.0),
    ],
)
def test_who_is_well_rests_until_a_sign_of_life_is_due(trigger: int, observation: Observation, verdict: Verdict, seconds: float) -> None:
    """Never when it is not well, or gives no sign, or the sign is late: a hang is found on the tick on which it is one."""
    spec = next(iter(load_platform().streams.values())).model_copy(update={"trigger_seconds": trigger})
    assert rest(spec, observation, verdict, NOW) == pytest.approx(seconds)
