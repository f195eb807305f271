"""A wall clock that is set back or forward under the watchdog: it delays nothing for long, and restarts nothing that works."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Action, Checkpoint, Decision, Driver, DriverState, Head, Observation, QueryStatus, Reading, Verdict, Wanted
from k2.supervision.conclude import READING_LIMIT
from k2.supervision.judge import judge
from k2.supervision.verdicts import HUNG, STANDS

from .observations import NOW, RESTART, SPEC, STREAM, ago

HOUR = timedelta(hours=1)


WANTED = Wanted(
    "running", 2, 5, launch_generation=2, intent_at=ago(901), launched_at=ago(900), first_commit_at=ago(890), first_commit_batch=7, verdict="PROGRESSING"
)
WANTED = replace(WANTED, verdict_since=ago(800))
DRIVER = Driver(DriverState.RUNNING, fence=5, pid=10, started_at=ago(900))
STATUS = QueryStatus(STREAM, 5, "q", "r", 9, "Processing new data", "running", None, ago(3), 0.4, 0, 2.0, 1, ago(1))
BUSY = Checkpoint("q", 10, 9, ago(8), {"topic": {"0": 7}}, ago(3))
AHEAD = Head({"topic": {"0": 9}}, lag_rows=2, lag_seconds=1.0)


def decide(now: datetime, read: datetime, **parts: Any) -> Decision:
    """The verdict at `now` on readings taken at `read`."""
    values = {"wanted": WANTED, "driver": DRIVER, "status": STATUS, "checkpoint": BUSY, "head": AHEAD, **parts}
    return judge(SPEC, Observation(STREAM, now, **{name: Reading(read, value) for name, value in values.items()}), RESTART, now)


def test_readings_from_the_future_are_no_readings() -> None:
    """What was read before the clock was set back would look fresh for as long as the step was."""
    found = decide(NOW - HOUR, NOW)
    assert (found.verdict, found.action) == (Verdict.UNKNOWN, Action.NONE)
    assert "the clock was set back" in found.because
    assert decide(NOW - timedelta(seconds=3), NOW).verdict is Verdict.PROGRESSING, "a correction of a few seconds is none"


def test_a_clock_set_back_makes_no_dead_stream_wait() -> None:
    """A death, an intent and a hang that were noted an hour ahead are acted on now."""
    now = NOW - HOUR
    died = replace(DRIVER, state=DriverState.EXITED, ended_at=ago(1), exit_code=-9)
    found = decide(now, now, driver=died, wanted=replace(WANTED, deaths=4))
    assert (found.verdict, found.action) == (Verdict.DEAD, Action.START)
    intended = replace(WANTED, launched_at=None, fence=6, intent_at=ago(0), first_commit_at=None)
    assert decide(now, now, wanted=intended).action is Action.START
    overdue = replace(BUSY, last_offset_at=now - timedelta(seconds=500), last_commit_at=now - timedelta(seconds=501))
    hung = replace(WANTED, verdict="HUNG_PROCESSING", verdict_since=ago(0))
    found = decide(now, now, wanted=hung, checkpoint=overdue, status=replace(STATUS, tasks_at=None))
    assert (found.verdict, found.action, found.detected_at) == (Verdict.HUNG_PROCESSING, Action.START, now)


def test_a_clock_set_forward_restarts_nothing_that_works() -> None:
    """Everything is an hour old at once: a hang is suspected, must stand through another reading, and that one finds the batch done."""
    now = NOW + HOUR
    found = decide(now, now)
    assert found.verdict in HUNG and (found.action, found.not_before) == (Action.WAIT, now + STANDS)
    later = now + STANDS
    done = replace(BUSY, last_commit_batch=10, last_commit_at=later - timedelta(seconds=4))
    suspected = replace(WANTED, verdict=str(found.verdict), verdict_since=now)
    found = decide(later, later, wanted=suspected, checkpoint=done, status=replace(STATUS, last_event_at=later - timedelta(seconds=4)))
    assert (found.verdict, found.action) == (Verdict.PROGRESSING, Action.NONE)


@given(step=st.floats(-7200, 7200), after=st.floats(0, 20), lag=st.sampled_from([0, 2]), flight=st.booleans())
def test_no_step_restarts_a_stream_that_works(step: float, after: float, lag: int, flight: bool) -> None:
    """However far the clock is set and whatever the stream does, the first look after it acts on nothing."""
    now = NOW + timedelta(seconds=step + after)
    checkpoint = BUSY if flight else replace(BUSY, last_commit_batch=10)
    found = decide(now, now, checkpoint=checkpoint, head=replace(AHEAD, lag_rows=lag))
    assert found.action in (Action.NONE, Action.WAIT)
    if abs(step) > READING_LIMIT.total_seconds() + 20:
        old = decide(now, NOW, checkpoint=checkpoint)
        assert (old.verdict, old.action) == (Verdict.UNKNOWN, Action.NONE)
