"""When an outage begins, recovers, catches up, and is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Action, Checkpoint, Decision, Driver, DriverState, Head, Observation, Outage, QueryStatus, Reading, Verdict, Wanted
from k2.registry.platform import load_platform
from k2.supervision.outages import Change, follow, last_good
from k2.supervision.verdicts import CALM, HUNG, TROUBLE

STREAM = "bronze_binance"
SPEC = load_platform().streams[STREAM]
T0 = datetime(2026, 1, 1, tzinfo=UTC)
OUTAGE = Outage(STREAM, "DEAD", "it died", 4, T0 - timedelta(seconds=3), T0, id=1)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def decided(verdict: Verdict, action: Action = Action.NONE, *, seconds: float | None = None, fence: int = 4) -> Decision:
    return Decision(STREAM, verdict, action, "because", fence=fence, detected_at=at(seconds) if seconds is not None else None)


def seen(
    seconds: float,
    *,
    fence: int = 4,
    first_commit: float | None = None,
    desired: str = "running",
    committed: float | None = None,
    lag: float | None = 0.0,
    read: float | None = None,
    batch: float | None = None,
) -> Observation:
    """What was seen that many seconds after the detection; `read` is when checkpoint, head and status were read, if earlier."""
    known = at(seconds if read is None else read)
    status = QueryStatus(STREAM, fence, "q", "r", 1, "", "running", None, known, batch, 1)
    return Observation(
        STREAM,
        at(seconds),
        Reading(at(seconds), Wanted(desired, 1, fence, 1, first_commit_at=at(first_commit) if first_commit is not None else None)),
        Reading(at(seconds), Driver(DriverState.RUNNING, fence)),
        Reading(known, status),
        Reading(known, Checkpoint("q", 3, 3, at(committed) if committed is not None else None, {})),
        Reading(known, Head({}, None if lag is None else int(lag), lag)),
    )


def step(followed: Outage | None, observation: Observation, decision: Decision) -> Change:
    return follow(followed, observation, decision, SPEC, observation.at)


def test_trouble_begins_an_outage_once() -> None:
    """At the moment of its detection, with its first verdict; while it lasts, another verdict changes nothing."""
    change = step(None, seen(1), decided(Verdict.DEAD, Action.START, seconds=0))
    assert change == Change(opened=Outage(STREAM, "DEAD", "because", 4, T0, T0))
    assert step(OUTAGE, seen(2), decided(Verdict.HUNG_SOURCE, Action.START, seconds=2)) == Change()


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - TROUBLE - {Verdict.SUSPECT_DRIVER}))
def test_no_other_verdict_begins_one(verdict: Verdict) -> None:
    """What cannot be known, what starts and what was stopped is no outage."""
    assert step(None, seen(1), decided(verdict)) == Change()


def test_a_suspicion_is_no_outage_until_it_leads_to_a_restart() -> None:
    """As people are told of it."""
    assert step(None, seen(1), decided(Verdict.SUSPECT_DRIVER, Action.WAIT)) == Change()
    assert step(None, seen(1), decided(Verdict.SUSPECT_DRIVER, Action.START)).opened is not None


def test_the_first_commit_of_a_later_fence_recovers() -> None:
    """Whatever the verdict is by then; a commit of the old driver does not."""
    assert step(OUTAGE, seen(5, first_commit=4), decided(Verdict.STARTING)) == Change(), "the launch that was in trouble had committed long ago"
    change = step(OUTAGE, seen(5, fence=6, first_commit=4, lag=60), decided(Verdict.PROGRESSING))
    assert change.followed == replace(OUTAGE, recovered_at=at(4), recovered_by="commit", recovered_fence=6)


def test_without_a_restart_a_later_commit_recovers() -> None:
    """As of a stream that waited for a dependency."""
    assert step(OUTAGE, seen(5, committed=-3, lag=60), decided(Verdict.PROGRESSING)) == Change()
    change = step(OUTAGE, seen(5, committed=4, lag=60), decided(Verdict.PROGRESSING))
    assert change.followed == replace(OUTAGE, recovered_at=at(4), recovered_by="commit", recovered_fence=4)


def test_a_stream_with_nothing_to_commit_recovers_by_being_idle() -> None:
    """By readings of after the detection only; and then it has caught up, as a later look says."""
    assert step(OUTAGE, seen(5, fence=5, read=-1), decided(Verdict.IDLE)) == Change(), "the readings are older than the death"
    change = step(OUTAGE, seen(5, fence=5), decided(Verdict.IDLE))
    assert change.followed is not None and (change.followed.recovered_at, change.followed.recovered_by) == (at(5), "idle")
    later = step(change.followed, seen(6, fence=5), decided(Verdict.IDLE))
    assert later.followed == replace(change.followed, caught_up_at=at(6), over_at=at(6), outcome="caught_up")


@pytest.mark.parametrize(
    ("lag", "batch", "read", "caught"), [(60.0, None, 9, False), (12.0, None, 9, False), (12.0, 3.0, 9, True), (10.0, None, 9, True), (0.0, None, 3, False)]
)
def test_it_has_caught_up_within_a_trigger_and_a_batch(lag: float, batch: float | None, read: float, caught: bool) -> None:
    """The oldest record that waits is no older than that, by a reading of after the recovery."""
    recovered = replace(OUTAGE, recovered_at=at(4), recovered_by="commit", recovered_fence=5)
    change = step(recovered, seen(10, fence=5, lag=lag, batch=batch, read=read), decided(Verdict.PROGRESSING))
    assert (change.followed is not None and change.followed.outcome == "caught_up") is caught


def test_trouble_before_it_has_caught_up_is_the_next_outage() -> None:
    """The first one is over as it stands."""
    recovered = replace(OUTAGE, recovered_at=at(4), recovered_by="commit", recovered_fence=5)
    change = step(recovered, seen(9, fence=5), decided(Verdict.DEAD, Action.START, seconds=8, fence=5))
    assert change.followed == replace(recovered, over_at=at(9), outcome="interrupted")
    assert change.opened is not None and (change.opened.detected_at, change.opened.fence) == (at(8), 5)


def test_a_successor_that_committed_and_died_between_two_looks_recovered() -> None:
    """Its commit ends the outage, and its death is another."""
    change = step(OUTAGE, seen(9, fence=5, first_commit=4), decided(Verdict.DEAD, Action.START, seconds=9, fence=5))
    assert change.followed is not None and (change.followed.recovered_at, change.followed.outcome) == (at(4), "interrupted")
    assert change.opened is not None


def test_a_stream_that_nobody_wants_is_down_no_longer() -> None:
    """Stopped on request: the outage is over, unrecovered. A replacement is no stop."""
    change = step(OUTAGE, seen(5, desired="stopped"), decided(Verdict.STOPPED))
    assert change.followed == replace(OUTAGE, over_at=at(5), outcome="stopped")
    assert step(OUTAGE, seen(5), decided(Verdict.STOPPING, Action.REPLACE)) == Change()


def test_a_look_of_before_says_nothing() -> None:
    """A look that began before the detection, or before the recovery, was overtaken."""
    assert step(OUTAGE, seen(-1, fence=5, first_commit=-1), decided(Verdict.IDLE)) == Change()
    recovered = replace(OUTAGE, recovered_at=at(4), recovered_by="commit", recovered_fence=5)
    assert step(recovered, seen(3, fence=4), decided(Verdict.DEAD, Action.START, seconds=0)) == Change()


OPTIONAL = st.none() | st.floats(-100, 100)


@given(
    st.sampled_from(list(Verdict)), st.sampled_from(list(Action)), st.floats(-20, 100), st.integers(3, 7), OPTIONAL, OPTIONAL, OPTIONAL, st.booleans(), OPTIONAL
)
def test_an_outage_only_goes_forward(
    verdict: Verdict,
    action: Action,
    seconds: float,
    fence: int,
    first: float | None,
    committed: float | None,
    lag: float | None,
    open_: bool,
    read: float | None,
) -> None:
    """Whatever is seen: no moment lies before the one it follows, UNKNOWN ends nothing, and one outage at most is left to follow."""
    followed = OUTAGE if open_ else None
    change = step(followed, seen(seconds, fence=fence, first_commit=first, committed=committed, lag=lag, read=read), decided(verdict, action))
    after: Any = change.followed or followed
    if after is not None:
        moments = [m for m in (after.good_at, after.detected_at, after.recovered_at, after.caught_up_at) if m is not None]
        assert moments == sorted(moments)
        assert (after.recovered_at is None) == (after.recovered_by is None)
        assert after.over_at is None or after.outcome is not None
    if verdict is Verdict.UNKNOWN:
        assert change.opened is None and (change.followed is None or change.followed.over_at is None)
    if change.opened is not None:
        assert verdict in TROUBLE | HUNG and verdict not in CALM
        assert after is None or after.over_at is not None


def test_the_last_good_moment() -> None:
    """The latest of the last commit, of having been seen idle, and of the launch of a driver that never committed; never after the detection."""
    assert last_good(T0, at(-10), None, None) == at(-10)
    assert last_good(T0, at(-3600), at(-4), None) == at(-4)
    assert last_good(T0, at(-3600), None, at(-60)) == at(-60)
    assert last_good(T0, at(5), None, None) == T0
    assert last_good(T0, None, None, None) == T0
