"""How a running query fares: what is hung, what is only slow, and what cannot be known."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Action, Checkpoint, Decision, Driver, DriverState, Head, Observation, QueryStatus, Reading, Verdict, Wanted
from k2.registry.platform import load_platform
from k2.supervision.judge import judge
from k2.supervision.progress import patience, quiet_limit
from k2.supervision.verdicts import HUNG, STANDS

from .observations import NOW, RESTART, SILENT, ago

STREAM = "silver_binance"
SPEC = load_platform().streams[STREAM].model_copy(update={"trigger_seconds": 10})


WANTED = Wanted("running", 2, 5, launch_generation=2, intent_at=ago(9001), launched_at=ago(9000), first_commit_at=ago(8990), first_commit_batch=7)
DRIVER = Driver(DriverState.RUNNING, fence=5, pid=10, started_at=ago(9000))
STATUS = QueryStatus(
    STREAM, 5, "q", "r", 9, "Waiting for next trigger", "running", None, ago(3), 0.4, 0, longest_pause_seconds=2.0, active_tasks=0, tasks_at=ago(60)
)
CAUGHT_UP = Checkpoint("q", 9, 9, ago(3600), {"snapshot_id": 1}, ago(3601))
IN_FLIGHT = replace(CAUGHT_UP, last_offset_batch=10, last_offset_at=ago(100), last_commit_at=ago(110))
LEVEL = Head({"snapshot_id": 1}, lag_rows=0, lag_seconds=0.0)
AHEAD = Head({"snapshot_id": 2}, lag_rows=5, lag_seconds=20.0)


def decide(**parts: Any) -> Decision:
    values = {"wanted": WANTED, "driver": DRIVER, "status": STATUS, "checkpoint": CAUGHT_UP, "head": AHEAD, **parts}
    readings = {name: value if isinstance(value, Reading) else Reading(ago(0.1), value) for name, value in values.items()}
    return judge(SPEC, Observation(STREAM, NOW, **readings), RESTART, NOW)


def verdict(**parts: Any) -> tuple[Verdict, Action]:
    found = decide(**parts)
    return found.verdict, found.action


def standing(name: Verdict, seconds: float, **changes: Any) -> Wanted:
    """What is wanted of a stream whose recorded verdict has stood for so long."""
    return replace(WANTED, verdict=str(name), verdict_since=ago(seconds), **changes)


@pytest.mark.parametrize(("trigger", "seconds"), [(1, 30), (5, 30), (10, 30), (15, 45), (25, 75), (60, 180)])
def test_the_quiet_limit_follows_the_trigger(trigger: int, seconds: int) -> None:
    """Three times the pause between idle events, which come at the first trigger tick after ten seconds."""
    assert quiet_limit(SPEC.model_copy(update={"trigger_seconds": trigger})) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("trigger", "seconds"), [(1, 18), (5, 30), (10, 45), (15, 45), (20, 60), (30, 90)])
def test_patience_leaves_time_to_find_a_hang_within_three_triggers_and_30_seconds(trigger: int, seconds: int) -> None:
    """A batch is planned up to one trigger after the cause, and seen by a reading some seconds after its time is up."""
    found = patience(SPEC.model_copy(update={"trigger_seconds": trigger}), STATUS, RESTART)
    assert found == timedelta(seconds=seconds) and found <= timedelta(seconds=3 * trigger + 15)


def test_patience_follows_the_longest_pause() -> None:
    """A stream of slow tasks gets more of it, and no more than a start has: a stall that it survived must not hide the next."""
    assert patience(SPEC, None, RESTART) == patience(SPEC, STATUS, RESTART) == timedelta(seconds=45)
    assert patience(SPEC, replace(STATUS, longest_pause_seconds=40), RESTART) == timedelta(seconds=120)
    assert patience(SPEC, replace(STATUS, longest_pause_seconds=1200), RESTART) == timedelta(seconds=RESTART.start_timeout_seconds)
    assert patience(SPEC.model_copy(update={"trigger_seconds": 90}), replace(STATUS, longest_pause_seconds=1200), RESTART) == timedelta(seconds=270)


def test_the_first_row_after_an_idle_hour_is_no_hang() -> None:
    """The last commit is an hour old, and that says nothing about a batch that was due just now."""
    assert verdict() == (Verdict.PROGRESSING, Action.NONE)


def test_a_planned_batch_that_does_nothing_is_hung() -> None:
    """Named with where it hangs, and restarted the first time as soon as a second reading has found it too."""
    blocked = {"checkpoint": IN_FLIGHT, "status": replace(STATUS, message="Processing new data", active_tasks=0)}
    found = decide(**blocked)
    assert (found.verdict, found.action, found.not_before) == (Verdict.HUNG_PROCESSING, Action.WAIT, NOW + STANDS)
    assert verdict(wanted=standing(Verdict.HUNG_PROCESSING, 12), **blocked) == (Verdict.HUNG_PROCESSING, Action.START)
    assert "in the driver's own code" in found.because and "batch 10" in found.because
    assert "in tasks" in decide(checkpoint=IN_FLIGHT, status=replace(STATUS, active_tasks=2)).because


@pytest.mark.parametrize("seconds", [1, 44])
def test_a_batch_whose_tasks_rise_is_not_hung(seconds: float) -> None:
    """However long ago it was planned."""
    slow = replace(IN_FLIGHT, last_offset_at=ago(5000), last_commit_at=ago(5001))
    assert verdict(checkpoint=slow, status=replace(STATUS, tasks_at=ago(seconds))) == (Verdict.PROGRESSING, Action.NONE)
    assert verdict(checkpoint=slow, status=replace(STATUS, tasks_at=ago(46)))[0] is Verdict.HUNG_PROCESSING


def test_a_batch_five_triggers_long_is_left_alone_where_tasks_are_long() -> None:
    """The stream's own history is the measure."""
    assert verdict(checkpoint=replace(IN_FLIGHT, last_offset_at=ago(50)), status=replace(STATUS, longest_pause_seconds=20)) == (
        Verdict.PROGRESSING,
        Action.NONE,
    )


def test_a_query_that_no_longer_asks_is_hung_at_its_source() -> None:
    """Behind, nothing planned, no sign for the quiet limit; a trigger that is dead is told from a source that does not answer."""
    assert verdict(status=replace(STATUS, last_event_at=ago(29))) == (Verdict.PROGRESSING, Action.NONE)
    found = decide(status=replace(STATUS, last_event_at=ago(31), message="Getting offsets from KafkaV2[Subscribe[t]]"))
    assert (found.verdict, found.action) == (Verdict.HUNG_SOURCE, Action.WAIT)
    assert "hangs at its source" in found.because
    assert "trigger is dead" in decide(status=replace(STATUS, last_event_at=ago(31))).because


def test_a_query_that_is_awake_and_finds_nothing() -> None:
    """Behind by the last verdicts for longer than a batch may take, and its events are fresh: told, never restarted."""
    assert verdict(wanted=standing(Verdict.PROGRESSING, 44)) == (Verdict.PROGRESSING, Action.NONE)
    assert verdict(wanted=standing(Verdict.PROGRESSING, 46)) == (Verdict.HEAD_MISMATCH, Action.NONE)
    quiet = {"wanted": standing(Verdict.PROGRESSING, 46), "status": replace(STATUS, last_event_at=ago(25))}
    assert verdict(**quiet) == (Verdict.PROGRESSING, Action.NONE), "it may be about to be called hung"
    assert verdict(wanted=standing(Verdict.HEAD_MISMATCH, 1)) == (Verdict.HEAD_MISMATCH, Action.NONE)
    commits = replace(CAUGHT_UP, last_commit_at=ago(5))
    assert verdict(wanted=standing(Verdict.PROGRESSING, 5000), checkpoint=commits) == (Verdict.PROGRESSING, Action.NONE)
    assert verdict(wanted=standing(Verdict.HEAD_MISMATCH, 60), checkpoint=commits) == (Verdict.PROGRESSING, Action.NONE)


def test_an_idle_stream_without_signs_of_life_is_suspect() -> None:
    """A driver that does not answer, or whose query says nothing, is restarted only when that has lasted."""
    for parts, lasts in (({"status": SILENT}, 30), ({"status": replace(STATUS, last_event_at=ago(31))}, 22)):
        found = decide(head=LEVEL, **parts)
        assert (found.verdict, found.action, found.not_before) == (Verdict.SUSPECT_DRIVER, Action.WAIT, NOW + timedelta(seconds=lasts))
        assert verdict(head=LEVEL, wanted=standing(Verdict.SUSPECT_DRIVER, lasts - 1), **parts) == (Verdict.SUSPECT_DRIVER, Action.WAIT)
        assert verdict(head=LEVEL, wanted=standing(Verdict.SUSPECT_DRIVER, lasts), **parts) == (Verdict.SUSPECT_DRIVER, Action.START)
        assert verdict(head=LEVEL, wanted=standing(Verdict.IDLE, 5000), **parts) == (Verdict.SUSPECT_DRIVER, Action.WAIT), (
            "another verdict's age does not count"
        )


def test_a_frozen_driver_that_is_behind() -> None:
    """With a batch in flight it is hung once the batch is overdue; without one it is suspect; one that commits is not."""
    found = decide(checkpoint=IN_FLIGHT, status=SILENT)
    assert (found.verdict, found.action) == (Verdict.HUNG_PROCESSING, Action.WAIT)
    assert "frozen" in found.because
    assert verdict(checkpoint=IN_FLIGHT, status=SILENT, wanted=standing(Verdict.HUNG_PROCESSING, 10)) == (Verdict.HUNG_PROCESSING, Action.START)
    assert verdict(status=SILENT) == (Verdict.SUSPECT_DRIVER, Action.WAIT)
    assert verdict(status=SILENT, wanted=standing(Verdict.SUSPECT_DRIVER, 12)) == (Verdict.SUSPECT_DRIVER, Action.START)
    assert verdict(status=SILENT, checkpoint=replace(CAUGHT_UP, last_commit_at=ago(5))) == (Verdict.PROGRESSING, Action.NONE)


def test_waiting_for_a_dependency_holds() -> None:
    """Only when the watchdog cannot reach it either; a driver that alone cannot is judged like any other."""
    waiting = replace(STATUS, waits_for="schema_registry", phase="waiting")
    down = Reading[bool](ago(0.1), error="ConnectError: refused")
    assert verdict(status=waiting, checkpoint=IN_FLIGHT, registry=down) == (Verdict.WAITING_DEPENDENCY, Action.NONE)
    alone = decide(status=waiting, checkpoint=IN_FLIGHT, registry=True)
    assert alone.verdict is Verdict.HUNG_PROCESSING and "waiting for schema_registry, which answers the watchdog" in alone.because
    assert verdict(status=replace(STATUS, waits_for="catalog"), checkpoint=IN_FLIGHT)[0] is Verdict.HUNG_PROCESSING


def test_a_driver_whose_query_has_ended() -> None:
    """It should have left by itself."""
    dead = replace(STATUS, message="ended")
    assert verdict(status=dead) == (Verdict.QUERY_DEAD, Action.WAIT)
    assert verdict(status=dead, wanted=standing(Verdict.QUERY_DEAD, 30)) == (Verdict.QUERY_DEAD, Action.START)


def test_a_start_that_does_not_move_is_hung() -> None:
    """Neither a finished task nor an event for as long as a start may take; a long first batch whose tasks rise is left alone."""
    young = replace(WANTED, first_commit_at=None, first_commit_batch=None)
    launched = replace(DRIVER, started_at=ago(179))
    assert verdict(wanted=young, driver=launched, status=SILENT) == (Verdict.STARTING, Action.NONE)
    launched = replace(DRIVER, started_at=ago(181))
    assert verdict(wanted=young, driver=launched, status=SILENT) == (Verdict.HUNG_START, Action.WAIT)
    busy = replace(STATUS, phase="running", last_event_at=None, tasks_at=ago(2))
    assert verdict(wanted=young, driver=replace(DRIVER, started_at=ago(2000)), status=busy) == (Verdict.STARTING, Action.NONE)


def test_hangs_count_like_deaths() -> None:
    """The second restart in a row waits, from the moment the hang was seen."""
    hung = {"checkpoint": IN_FLIGHT, "status": replace(STATUS, active_tasks=1)}
    found = decide(wanted=replace(WANTED, deaths=2), **hung)
    assert (found.action, found.detected_at) == (Action.WAIT, NOW)
    backoff = timedelta(seconds=RESTART.backoff_seconds[3])
    assert backoff > STANDS
    assert decide(wanted=replace(WANTED, deaths=3), **hung).not_before == NOW + backoff
    assert decide(wanted=standing(Verdict.HUNG_PROCESSING, backoff.total_seconds(), deaths=3), **hung).action is Action.START


ages = st.floats(0, 10_000)


@given(
    event=ages, commit=ages, planned=ages, tasks=ages, since=ages, verdict=st.none() | st.sampled_from(list(Verdict)), flight=st.booleans(), level=st.booleans()
)
def test_what_must_never_happen(
    event: float, commit: float, planned: float, tasks: float, since: float, verdict: Verdict | None, flight: bool, level: bool
) -> None:
    """Idle and awake is never restarted; tasks that rise are never hung; nothing is restarted from an old reading."""
    wanted = replace(WANTED, verdict=verdict and str(verdict), verdict_since=ago(since))
    checkpoint = replace(CAUGHT_UP, last_commit_at=ago(commit), last_offset_at=ago(planned), last_offset_batch=10 if flight else 9)
    status = replace(STATUS, last_event_at=ago(event), tasks_at=ago(tasks))
    parts = {"wanted": wanted, "checkpoint": checkpoint, "status": status, "head": LEVEL if level else AHEAD}
    found = decide(**parts)
    if level and event < 30:
        assert found.verdict is Verdict.IDLE and found.action is Action.NONE
    if flight and not level and min(tasks, planned) < 45:
        assert found.verdict is Verdict.PROGRESSING
    if found.action is Action.START:
        assert found.verdict in HUNG and found.because
    for part in ("checkpoint", "head"):
        old = decide(**{**parts, part: Reading(ago(31), parts[part])})
        assert old.verdict is Verdict.UNKNOWN and old.action is Action.NONE
