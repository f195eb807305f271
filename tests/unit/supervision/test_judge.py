"""The decision rule, case by case and over every combination of readings."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import (
    Action,
    Checkpoint,
    Driver,
    DriverState,
    ExitCode,
    Head,
    Observation,
    Reading,
    Verdict,
    Wanted,
)
from k2.supervision.conclude import READING_LIMIT
from k2.supervision.judge import INTENT_GRACE, judge
from k2.supervision.policy import jitter
from k2.supervision.verdicts import HUNG

from .observations import CHECKPOINT, DIED, DRIVER, HEAD, NOW, OLD, RESTART, SILENT, SPEC, STATUS, STREAM, WANTED, ago, decide, verdict


def test_caught_up_is_idle_and_behind_is_progressing() -> None:
    """The head of the source decides, and nothing is done about either."""
    assert verdict() == (Verdict.IDLE, Action.NONE)
    assert verdict(head=replace(HEAD, lag_rows=3)) == (Verdict.PROGRESSING, Action.NONE)


def test_an_unknown_lag_is_judged_by_position() -> None:
    """Where rows cannot be counted, equal positions are idle and others are not."""
    assert verdict(head=replace(HEAD, lag_rows=None)) == (Verdict.IDLE, Action.NONE)
    assert verdict(head=Head({"topic": {"0": 8}}, None, None)) == (Verdict.PROGRESSING, Action.NONE)


@pytest.mark.parametrize("part", ["wanted", "driver"])
def test_what_must_be_known_and_is_not_holds(part: str) -> None:
    """A silent database or host agent is no death, nor is an answer that is too old."""
    assert verdict(**{part: SILENT}) == (Verdict.UNKNOWN, Action.NONE)
    dead = {"driver": DIED, "wanted": WANTED}
    assert verdict(**{**dead, part: SILENT}) == (Verdict.UNKNOWN, Action.NONE)
    found = decide(**{**dead, part: Reading(ago(OLD), dead[part])})
    assert (found.verdict, found.action) == (Verdict.UNKNOWN, Action.NONE)
    assert "31 s ago" in found.because


@pytest.mark.parametrize("part", ["checkpoint", "head"])
def test_a_running_stream_without_checkpoint_or_head_is_unknown(part: str) -> None:
    """Idle is never assumed."""
    assert verdict(**{part: SILENT}) == (Verdict.UNKNOWN, Action.NONE)
    assert verdict(**{part: Reading(ago(OLD), {"checkpoint": CHECKPOINT, "head": HEAD}[part])}) == (Verdict.UNKNOWN, Action.NONE)


@pytest.mark.parametrize("part", ["checkpoint", "head", "status"])
def test_a_death_needs_neither_checkpoint_nor_head(part: str) -> None:
    """A dead driver is started again while Kafka is away."""
    assert verdict(driver=DIED, **{part: SILENT}) == (Verdict.DEAD, Action.START)


def test_a_driver_read_before_what_is_wanted_holds() -> None:
    """A start between the two readings must not look like a missing driver."""
    absent = Reading(ago(2), Driver(DriverState.ABSENT))
    assert verdict(driver=absent, wanted=Reading(ago(1), WANTED)) == (Verdict.UNKNOWN, Action.NONE)
    assert verdict(driver=replace(absent, at=ago(0)), wanted=Reading(ago(1), WANTED)) == (Verdict.DEAD, Action.START)


def test_a_driver_that_the_database_does_not_know_holds() -> None:
    """A higher fence at the agent is a start in between or a restored database, never a reason to act."""
    for state in DriverState:
        assert verdict(driver=replace(DRIVER, state=state, fence=6)) == (Verdict.UNKNOWN, Action.NONE)


def test_wanted_stopped() -> None:
    """What runs is stopped, an older driver too; what does not run is left alone however it ended."""
    stopped = replace(WANTED, desired="stopped", generation=3)
    assert verdict(wanted=stopped) == (Verdict.STOPPING, Action.STOP)
    assert verdict(wanted=stopped, driver=replace(DRIVER, fence=4)) == (Verdict.STOPPING, Action.STOP)
    assert verdict(wanted=stopped, driver=DIED, others=(replace(DRIVER, fence=4),)) == (Verdict.STOPPING, Action.STOP)
    for driver in (DIED, replace(DIED, exit_code=78), replace(DIED, exit_code=0), Driver(DriverState.ABSENT)):
        assert verdict(wanted=stopped, driver=driver) == (Verdict.STOPPED, Action.NONE)


def test_never_started() -> None:
    """A stream without a launch starts at once, and that is no death."""
    fresh = Wanted("running", 1, 0)
    assert verdict(wanted=fresh, driver=Driver(DriverState.ABSENT)) == (Verdict.STARTING, Action.START)


def test_a_newer_generation_replaces() -> None:
    """A request replaces what runs, and starts what does not without waiting for any backoff."""
    asked = replace(WANTED, generation=3, deaths=7)
    assert verdict(wanted=asked) == (Verdict.STOPPING, Action.REPLACE)
    assert verdict(wanted=asked, driver=DIED) == (Verdict.STARTING, Action.START)
    assert verdict(wanted=asked, driver=replace(DIED, exit_code=ExitCode.CONFIG)) == (Verdict.STARTING, Action.START)


def test_an_unfinished_start_is_finished_under_its_own_fence() -> None:
    """A recorded intent is left to its author for a moment, then finished, however many deaths came before."""
    intent = replace(WANTED, launched_at=None, first_commit_at=None, first_commit_batch=None, deaths=6)
    for driver in (Driver(DriverState.ABSENT), replace(DIED, fence=4), replace(DRIVER, fence=4)):
        young = decide(wanted=replace(intent, intent_at=ago(1)), driver=driver)
        assert (young.verdict, young.action, young.not_before) == (Verdict.STARTING, Action.WAIT, ago(1) + INTENT_GRACE)
        old = decide(wanted=replace(intent, intent_at=ago(5)), driver=driver)
        assert (old.verdict, old.action, old.fence) == (Verdict.STARTING, Action.START, 5)


def test_a_launch_that_nobody_recorded_is_running_all_the_same() -> None:
    """The agent has the driver of the open intent: there is nothing to start."""
    assert verdict(wanted=replace(WANTED, launched_at=None, first_commit_at=None), status=SILENT) == (Verdict.STARTING, Action.NONE)


def test_a_driver_of_an_older_fence_is_not_the_driver() -> None:
    """When the launched driver is unknown to the agent, an older one, running or fenced off, does not count as it."""
    for driver in (replace(DRIVER, fence=4), replace(DIED, fence=4, exit_code=ExitCode.FENCED)):
        found = decide(driver=driver)
        assert (found.verdict, found.action) == (Verdict.DEAD, Action.START)
        assert "knows no driver with fence 5" in found.because


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exit_code": -9}, "was ended by signal 9"),
        ({"exit_code": 70, "exit_message": "QueryFailed: gone"}, "left with 70 (QUERY_FAILED): QueryFailed: gone"),
        ({"exit_code": 86}, "left with 86 (FENCED)"),
        ({"exit_code": 0}, "left though nobody had asked"),
        ({"exit_code": 3}, "left with 3"),
        ({"exit_code": None}, "nobody saw how"),
    ],
)
def test_a_first_death_starts_at_once(change: dict[str, Any], words: str) -> None:
    """However a driver of the current fence ended, its stream is dead, and the decision says how."""
    found = decide(driver=replace(DIED, **change))
    assert (found.verdict, found.action, found.detected_at) == (Verdict.DEAD, Action.START, NOW)
    assert (found.fence, found.generation) == (5, 2)
    assert words in found.because


def test_later_deaths_wait() -> None:
    """The wait counts from the death and grows with the deaths, recorded already or not."""
    factor = jitter(STREAM, 5)
    found = decide(driver=DIED, wanted=replace(WANTED, deaths=2))
    assert (found.verdict, found.action, found.not_before) == (Verdict.DEAD, Action.WAIT, ago(1) + timedelta(seconds=10) * factor)
    recorded = replace(WANTED, deaths=3, ended_at=ago(1))
    assert decide(driver=DIED, wanted=recorded).not_before == found.not_before
    assert verdict(driver=replace(DIED, ended_at=ago(13)), wanted=recorded) == (Verdict.DEAD, Action.START)


def test_a_mistake_in_the_configuration_is_not_repeated() -> None:
    """Exit 78 waits for a person, for ever; a new generation starts it."""
    found = decide(driver=replace(DIED, exit_code=ExitCode.CONFIG, ended_at=ago(10**6)))
    assert (found.verdict, found.action) == (Verdict.DEAD, Action.NONE)


def test_a_stop_through_the_agent_is_no_death() -> None:
    """After a platform was taken down and brought up again, its streams start without blame."""
    assert verdict(driver=replace(DIED, asked=True, exit_code=0), wanted=replace(WANTED, deaths=6)) == (Verdict.STARTING, Action.START)


def test_starting_until_the_first_commit() -> None:
    """A driver without a commit is starting, and says what it waits for."""
    wanted = replace(WANTED, first_commit_at=None, first_commit_batch=None)
    assert verdict(wanted=wanted, status=SILENT) == (Verdict.STARTING, Action.NONE)
    found = decide(wanted=wanted, status=replace(STATUS, phase="waiting", waits_for="schema_registry"))
    assert (found.verdict, found.action) == (Verdict.STARTING, Action.NONE)
    assert "waits for schema_registry" in found.because


def test_a_checkpoint_that_is_another_one_is_held() -> None:
    """Another identity, or an end before what was committed: stopped if it runs, never started, whoever asks."""
    known = replace(WANTED, known_query_id="q", known_batch=9)
    assert verdict(wanted=known) == (Verdict.IDLE, Action.NONE)
    for checkpoint in (replace(CHECKPOINT, query_id="r"), replace(CHECKPOINT, last_commit_batch=8), Checkpoint(None, None, None, None, None)):
        assert verdict(wanted=known, checkpoint=checkpoint) == (Verdict.REWIND, Action.STOP)
        assert verdict(wanted=known, checkpoint=checkpoint, driver=DIED) == (Verdict.REWIND, Action.NONE)
        assert verdict(wanted=replace(known, generation=3), checkpoint=checkpoint, driver=DIED) == (Verdict.REWIND, Action.NONE)
    older = Reading(ago(5), replace(CHECKPOINT, last_commit_batch=8))
    assert verdict(wanted=Reading(ago(1), known), driver=Reading(ago(0), DRIVER), checkpoint=older)[0] is not Verdict.REWIND, "it was read before"


def test_what_is_held_is_started_by_no_request_but_an_adopt() -> None:
    """Its source lost the place where it goes on: whatever its checkpoint says, also when that cannot be read."""
    held = replace(WANTED, held_for="Kafka no longer holds 5 records", generation=3)
    for checkpoint in (CHECKPOINT, SILENT):
        assert verdict(wanted=held, checkpoint=checkpoint, driver=DIED) == (Verdict.REWIND, Action.NONE)
    assert decide(wanted=held, driver=DIED).because.startswith("Kafka no longer holds 5 records: it is held until")
    assert verdict(wanted=replace(held, desired="stopped"), driver=DIED) == (Verdict.STOPPED, Action.NONE)


def test_a_checkpoint_that_is_to_be_made_again_need_not_be_the_one_it_was() -> None:
    """Whatever it says, and though it cannot be read, the start is made; once launched, or when that start was held, it is judged as ever."""
    asked = replace(WANTED, generation=3, rebuild_generation=3, known_query_id="other", known_batch=9, verdict="REWIND", verdict_since=ago(60))
    for checkpoint in (CHECKPOINT, SILENT):
        assert verdict(wanted=asked, driver=DIED, checkpoint=checkpoint) == (Verdict.STARTING, Action.START)
        assert verdict(wanted=asked, checkpoint=checkpoint) == (Verdict.STOPPING, Action.REPLACE)
        for judged in (replace(asked, launch_generation=3), replace(asked, generation=4), replace(asked, held_for="it would lose more")):
            assert verdict(wanted=judged, driver=DIED, checkpoint=checkpoint) == (Verdict.REWIND, Action.NONE)


def test_a_held_stream_stays_held_for_looks_that_do_not_read_its_checkpoint() -> None:
    """Until one that does finds it right again, or somebody adopts it, which forgets what was known."""
    held = replace(WANTED, verdict="REWIND", verdict_since=ago(60), known_query_id="q", known_batch=9)
    unread = Reading(ago(86400), error="it was not read yet")
    before = Reading(ago(5), CHECKPOINT)
    for checkpoint in (unread, before):
        assert verdict(wanted=held, driver=DIED, checkpoint=checkpoint) == (Verdict.REWIND, Action.NONE)
        assert verdict(wanted=held, checkpoint=checkpoint) == (Verdict.REWIND, Action.STOP)
        assert verdict(wanted=replace(held, known_batch=None, known_query_id=None), driver=DIED, checkpoint=checkpoint) == (Verdict.DEAD, Action.START)
    assert verdict(wanted=held, driver=DIED) == (Verdict.DEAD, Action.START)


def test_two_drivers_of_one_stream() -> None:
    """The lower fence is killed, and the one that holds the stream goes on."""
    found = decide(others=(replace(DRIVER, fence=4),))
    assert (found.verdict, found.action, found.fence) == (Verdict.SPLIT_BRAIN, Action.END_OLDER, 5)
    assert verdict(others=(replace(DIED, fence=4),)) == (Verdict.IDLE, Action.NONE)


def test_a_restart_with_nothing_to_commit_is_idle() -> None:
    """A query that runs, by its driver's own word, over a source that holds nothing new, has nothing to show."""
    wanted = replace(WANTED, first_commit_at=None, first_commit_batch=None)
    assert verdict(wanted=wanted) == (Verdict.IDLE, Action.NONE)
    for parts in (
        {"status": SILENT},
        {"status": replace(STATUS, fence=4)},
        {"status": replace(STATUS, phase="starting")},
        {"status": replace(STATUS, last_event_at=None)},
        {"head": replace(HEAD, lag_rows=1)},
        {"head": SILENT},
        {"checkpoint": SILENT},
        {"checkpoint": Checkpoint(None, None, None, None, None), "head": replace(HEAD, lag_rows=0)},
    ):
        assert verdict(wanted=wanted, **parts) == (Verdict.STARTING, Action.NONE), parts


moments = st.none() | st.floats(0, 10_000).map(ago)
small = st.integers(0, 6)


def readings(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Reading[Any]]:
    known = st.builds(Reading, at=st.floats(0, 60).map(ago), value=values)
    return st.one_of(known, known, known, st.just(SILENT))


drivers = st.builds(
    Driver,
    state=st.sampled_from(DriverState),
    fence=small,
    started_at=moments,
    ended_at=moments,
    exit_code=st.none() | st.sampled_from([*ExitCode, -9, -15, 1]),
    asked=st.booleans(),
)
observations = st.builds(
    Observation,
    stream=st.just(STREAM),
    at=st.just(NOW),
    wanted=readings(
        st.builds(
            Wanted,
            desired=st.sampled_from(["running", "stopped"]),
            generation=small,
            fence=small,
            launch_generation=st.none() | small,
            intent_at=st.floats(0, 100).map(ago),
            launched_at=moments,
            first_commit_at=moments,
            first_commit_batch=st.none() | small,
            ended_at=moments,
            deaths=st.integers(0, 20),
            last_death_at=moments,
            verdict=st.none() | st.sampled_from([str(verdict) for verdict in Verdict]),
            verdict_since=moments,
            known_query_id=st.sampled_from([None, "q", "r"]),
            known_batch=st.none() | small,
        )
    ),
    driver=readings(drivers),
    status=readings(
        st.builds(
            replace,
            st.just(STATUS),
            phase=st.sampled_from(["running", "starting"]),
            fence=small,
            last_event_at=moments,
            message=st.sampled_from(["ended", "Waiting for next trigger", "Processing new data"]),
            waits_for=st.sampled_from([None, "catalog", "schema_registry"]),
            longest_pause_seconds=st.none() | st.floats(0, 100),
            active_tasks=st.none() | small,
            tasks_at=moments,
        )
    ),
    checkpoint=readings(
        st.sampled_from(
            [
                CHECKPOINT,
                Checkpoint(None, None, None, None, None),
                Checkpoint("q", 0, None, None, None, ago(1000)),
                replace(CHECKPOINT, last_offset_batch=10, last_offset_at=ago(1000)),
            ]
        )
    ),
    head=readings(st.builds(Head, position=st.sampled_from([{}, HEAD.position]), lag_rows=st.none() | small, lag_seconds=st.none() | st.floats(0, 100))),
    others=st.lists(drivers, max_size=2).map(tuple),
    registry=st.none() | readings(st.just(True)),
)


@given(observations)
def test_every_combination_is_safe(observation: Observation) -> None:
    """Any readings at all: an answer comes, and none of the things that must never happen follows from it."""
    found = judge(SPEC, observation, RESTART, NOW)
    wanted, driver = observation.wanted, observation.driver
    assert found.stream == STREAM and found.because
    if found.verdict is Verdict.UNKNOWN:
        assert found.action is Action.NONE, "unknown never acts"
    if not wanted.known or not driver.known or NOW - wanted.at > READING_LIMIT or NOW - driver.at > READING_LIMIT:
        assert found.verdict is Verdict.UNKNOWN, "cannot know is never an answer"
        return
    if wanted.value.desired == "stopped":
        assert found.action in (Action.NONE, Action.STOP), "a stopped stream is never started"
    else:
        assert found.verdict is not Verdict.STOPPED
        assert found.action is not Action.STOP or found.verdict is Verdict.REWIND, "a wanted stream is stopped for one reason only"
    if found.verdict in (Verdict.IDLE, Verdict.PROGRESSING):
        assert found.action is Action.NONE, "a healthy stream is never restarted"
        assert driver.value.state is DriverState.RUNNING and driver.value.fence == wanted.value.fence
    if driver.value.state is DriverState.RUNNING and driver.value.fence == wanted.value.fence and found.action is Action.START:
        assert found.verdict in HUNG, "the current driver is started over for one reason only"
    if found.verdict is Verdict.REWIND:
        assert found.action in (Action.NONE, Action.STOP), "never started by itself"
    if found.verdict is Verdict.DEAD:
        assert found.detected_at == NOW
    if found.action is not Action.NONE:
        assert (found.fence, found.generation) == (wanted.value.fence, wanted.value.generation)
    if found.not_before is not None:
        assert found.action is (Action.WAIT if found.not_before > NOW else Action.START), "it waits until then, or is due since then"
