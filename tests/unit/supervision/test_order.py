"""Restarts of several streams: Bronze first, and few at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Action, Decision, Driver, DriverState, Observation, Reading, Verdict, Wanted
from k2.registry.platform import load_platform
from k2.supervision.order import arrange

from .observations import NOW, ago

PLATFORM = load_platform()
NAMES = list(PLATFORM.streams)
UNREAD = Reading[Any](NOW, error="not read")


def pair(stream: str, verdict: Verdict, action: Action, *, died: float | None = None, coming: bool = False) -> tuple[Observation, Decision]:
    driver = Driver(DriverState.RUNNING if died is None else DriverState.EXITED, 5, started_at=ago(20), ended_at=None if died is None else ago(died))
    wanted = Wanted("running", 1, 5, 1, ago(21), ago(20), first_commit_at=None if coming else ago(10), launch_detected_at=ago(22) if coming else None)
    readings = {"wanted": Reading(NOW, wanted), "driver": Reading(NOW, driver), "status": UNREAD, "checkpoint": UNREAD, "head": UNREAD}
    return Observation(stream, NOW, **readings), Decision(stream, verdict, action, "it died", fence=5)  # type: ignore[arg-type]


def dead(stream: str, died: float = 1) -> tuple[Observation, Decision]:
    return pair(stream, Verdict.DEAD, Action.START, died=died)


def well(stream: str) -> tuple[Observation, Decision]:
    return pair(stream, Verdict.PROGRESSING, Action.NONE)


def started(seen: list[tuple[Observation, Decision]]) -> list[str]:
    return [decision.stream for decision in arrange(PLATFORM, seen, NOW) if decision.action is Action.START]


def test_one_death_waits_for_nothing() -> None:
    """Of any stream, while the others are well."""
    for name in NAMES:
        assert started([dead(other) if other == name else well(other) for other in NAMES]) == [name]


def test_when_all_die_bronze_is_first_and_two_are_started_at_once() -> None:
    """Silver follows, as soon as there is room and its Bronze was launched."""
    assert started([dead(name) for name in reversed(NAMES)]) == ["bronze_kraken", "bronze_binance"]
    coming = [pair("bronze_binance", Verdict.STARTING, Action.NONE, coming=True), pair("bronze_kraken", Verdict.STARTING, Action.NONE, coming=True)]
    assert started([*coming, dead("silver_binance"), dead("silver_kraken")]) == []
    assert started([well("bronze_binance"), coming[1], dead("silver_binance"), dead("silver_kraken", 2)]) == ["silver_kraken"]


def test_silver_waits_for_bronze_that_died_with_it_and_not_for_ever() -> None:
    """A minute at most, and not for a Bronze that died long before."""
    held = replace(dead("bronze_binance", 40)[1], action=Action.WAIT)
    bronze = (dead("bronze_binance", 40)[0], held)
    (_, waits) = arrange(PLATFORM, [bronze, dead("silver_binance", 39)], NOW)
    assert (waits.verdict, waits.action, waits.not_before) == (Verdict.DEAD, Action.WAIT, ago(39) + timedelta(seconds=60))
    assert started([bronze, dead("silver_binance", 61)]) == ["silver_binance"]
    assert started([(dead("bronze_binance", 400)[0], held), dead("silver_binance")]) == ["silver_binance"]


def test_what_was_asked_for_is_not_limited() -> None:
    """Starts of a fresh platform, and restarts on request."""
    assert len(started([pair(name, Verdict.STARTING, Action.START, died=1) for name in NAMES])) == len(NAMES)


def test_a_restart_that_takes_too_long_keeps_no_place() -> None:
    """Nor does one that came back to find nothing to do."""
    seen, decision = pair("bronze_binance", Verdict.STARTING, Action.NONE, coming=True)
    late = replace(seen, driver=Reading(NOW, Driver(DriverState.RUNNING, 5, started_at=ago(61))))
    idle = pair("bronze_kraken", Verdict.IDLE, Action.NONE, coming=True)
    found_idle = replace(pair("bronze_kraken", Verdict.STARTING, Action.NONE, coming=True)[0].wanted.value, verdict=Verdict.IDLE, verdict_since=ago(5))  # type: ignore[type-var]
    unread = (replace(idle[0], wanted=Reading(NOW, found_idle)), decision)
    assert started([(late, decision), (unread[0], replace(decision, stream="bronze_kraken")), dead("silver_binance"), dead("silver_kraken")]) == [
        "silver_binance",
        "silver_kraken",
    ]
    assert started([(late, decision), idle, dead("silver_binance"), dead("silver_kraken")]) == ["silver_binance", "silver_kraken"]


def test_starts_that_do_not_come_about_keep_nobody_waiting() -> None:
    """Two streams have been due for long and cannot be started: one that has just died goes first, and of many that wait each has its turn."""

    def overdue(stream: str) -> tuple[Observation, Decision]:
        observation, decision = dead(stream, 600)
        return observation, replace(decision, not_before=ago(590))

    assert started([overdue("bronze_binance"), overdue("bronze_kraken"), dead("silver_binance"), well("silver_kraken")])[-1:] == ["silver_binance"]
    late = [decision for decision in arrange(PLATFORM, [overdue(name) for name in NAMES], NOW) if decision.action is Action.WAIT]
    assert [decision.not_before for decision in late] == [None, None], "when it is its turn is not known"
    seen = [overdue(name) for name in NAMES]
    tried = set()
    for turn in range(20):
        now = NOW + timedelta(seconds=15 * turn)
        due = [decision.stream for decision in arrange(PLATFORM, seen, now) if decision.action is Action.START]
        assert len(due) == PLATFORM.restart.at_once
        tried.update(due)
    assert tried == set(NAMES)


@given(st.lists(st.sampled_from(["dead", "well", "coming", "hung", "asked"]), min_size=4, max_size=4), st.lists(st.integers(0, 300), min_size=4, max_size=4))
def test_order_and_limit_hold_for_every_mixture(states: list[str], ages: list[int]) -> None:
    """Never more than allowed, never nothing while there is room and no Bronze to wait for; only what is restarted is changed."""
    make = {
        "dead": lambda name, age: dead(name, age),
        "well": lambda name, _: well(name),
        "coming": lambda name, _: pair(name, Verdict.STARTING, Action.NONE, coming=True),
        "hung": lambda name, _: pair(name, Verdict.HUNG_SOURCE, Action.START),
        "asked": lambda name, age: pair(name, Verdict.STARTING, Action.START, died=age),
    }
    seen = [make[state](name, age) for name, state, age in zip(NAMES, states, ages, strict=True)]
    found = arrange(PLATFORM, seen, NOW)
    restarts = [d for d, state in zip(found, states, strict=True) if state in ("dead", "hung") and d.action is Action.START]
    coming = states.count("coming")
    assert len(restarts) <= max(0, PLATFORM.restart.at_once - coming)
    assert all(d == before for d, (_, before), state in zip(found, seen, states, strict=True) if state not in ("dead", "hung"))
    assert [d.verdict for d in found] == [before.verdict for _, before in seen]
    if any(state in ("dead", "hung") for state in states) and coming < PLATFORM.restart.at_once:
        assert restarts, "somebody may go"
