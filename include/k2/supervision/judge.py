"""The decision rule. Three inputs are weighed together: the launcher's word, the checkpoint and the head of the source."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from k2.registry.observed import Action, Checkpoint, Decision, Driver, DriverState, ExitCode, Head, Observation, Reading, Verdict, Wanted
from k2.registry.platform import Restart, Stream
from k2.supervision.policy import start_not_before

READING_LIMIT = timedelta(seconds=30)
"""An older reading is no reading."""
INTENT_GRACE = timedelta(seconds=3)
"""How long a start that another watchdog recorded is left to it before it is finished in its place."""

Conclude = Callable[..., Decision]


def judge(spec: Stream, observation: Observation, restart: Restart, now: datetime) -> Decision:
    """The verdict on one stream and what follows from it. Total: every combination of readings has an answer."""
    unknown = partial(Decision, observation.stream, Verdict.UNKNOWN, Action.NONE)
    for name, reading in (("what is wanted", observation.wanted), ("the driver", observation.driver)):
        if why := _unusable(reading, now):
            return unknown(f"{name} cannot be known: {why}")
    wanted, driver = observation.wanted.value, observation.driver.value
    assert wanted is not None and driver is not None
    conclude = partial(Decision, observation.stream, fence=wanted.fence, generation=wanted.generation)
    unknown = partial(conclude, Verdict.UNKNOWN, Action.NONE)
    if observation.driver.at < observation.wanted.at:
        return unknown("the driver was read before what is wanted: a start may lie between")
    if driver.fence > wanted.fence:
        return unknown(f"the host agent knows fence {driver.fence}, the database only {wanted.fence}: a start lies between, or the database was restored")
    if wanted.desired != "running":
        return _unwanted(conclude, driver, observation.others)
    if wanted.launch_generation is None or wanted.launch_generation < wanted.generation:
        return _requested(conclude, wanted, driver)
    if driver.fence < wanted.fence and wanted.launched_at is None and wanted.ended_at is None:
        return _intended(conclude, wanted, now)
    if driver.fence == wanted.fence and driver.state is DriverState.RUNNING:
        return _running(conclude, observation, spec, wanted, driver, restart, now)
    return _dead(conclude, observation, wanted, driver, restart, now)


def _unusable(reading: Reading[object], now: datetime) -> str | None:
    if not reading.known or reading.value is None:
        return reading.error or "it was not read"
    if now - reading.at > READING_LIMIT:
        return f"it was last read {(now - reading.at).total_seconds():.0f} s ago"
    return None


def _unwanted(conclude: Conclude, driver: Driver, others: tuple[Driver, ...]) -> Decision:
    running = [d for d in (driver, *others) if d.state is DriverState.RUNNING]
    if running:
        return conclude(Verdict.STOPPING, Action.STOP, f"it is wanted stopped and its driver with fence {running[0].fence} runs")
    return conclude(Verdict.STOPPED, Action.NONE, "it is wanted stopped and no driver runs")


def _requested(conclude: Conclude, wanted: Wanted, driver: Driver) -> Decision:
    if driver.state is DriverState.RUNNING:
        because = f"generation {wanted.generation} is wanted and the driver with fence {driver.fence} was launched for {wanted.launch_generation}"
        return conclude(Verdict.STOPPING, Action.REPLACE, because)
    first = "it was never started" if wanted.launch_generation is None else f"generation {wanted.generation} is wanted"
    return conclude(Verdict.STARTING, Action.START, f"{first} and no driver runs")


def _intended(conclude: Conclude, wanted: Wanted, now: datetime) -> Decision:
    """A start with the current fence was recorded, and the agent has no such driver."""
    assert wanted.intent_at is not None
    ready = wanted.intent_at + INTENT_GRACE
    if now < ready:
        return conclude(Verdict.STARTING, Action.WAIT, f"a start with fence {wanted.fence} is under way", not_before=ready)
    return conclude(Verdict.STARTING, Action.START, f"a start with fence {wanted.fence} was recorded and not finished")


def _running(conclude: Conclude, observation: Observation, spec: Stream, wanted: Wanted, driver: Driver, restart: Restart, now: datetime) -> Decision:
    checkpoint = observation.checkpoint.value if _unusable(observation.checkpoint, now) is None else None
    head = observation.head.value if _unusable(observation.head, now) is None else None
    if wanted.first_commit_at is None:
        if _nothing_to_commit(observation, driver, checkpoint, head, now):
            return conclude(Verdict.IDLE, Action.NONE, "its query runs and everything that its source holds was committed before")
        return conclude(Verdict.STARTING, Action.NONE, _starting(observation, wanted, driver, restart, now))
    for name, reading in (("the checkpoint", observation.checkpoint), ("the head of its source", observation.head)):
        if why := _unusable(reading, now):
            return conclude(Verdict.UNKNOWN, Action.NONE, f"{name} cannot be known: {why}")
    assert checkpoint is not None and head is not None
    if _caught_up(checkpoint, head):
        return conclude(Verdict.IDLE, Action.NONE, f"everything that its source holds is committed, up to batch {checkpoint.last_commit_batch}")
    lag = "an unknown number of rows" if head.lag_rows is None else f"{head.lag_rows} rows"
    return conclude(Verdict.PROGRESSING, Action.NONE, f"{lag} behind, last committed batch {checkpoint.last_commit_batch}, trigger {spec.trigger_seconds} s")


def _caught_up(checkpoint: Checkpoint, head: Head) -> bool:
    if head.lag_rows is not None:
        return head.lag_rows == 0
    return checkpoint.committed is not None and head.position.items() <= checkpoint.committed.items()


def _nothing_to_commit(observation: Observation, driver: Driver, checkpoint: Checkpoint | None, head: Head | None, now: datetime) -> bool:
    """Whether a driver without a commit has none to make: its query runs, and the source held nothing more."""
    status = observation.status.value if _unusable(observation.status, now) is None else None
    if status is None or status.fence != driver.fence or status.phase != "running" or status.last_event_at is None:
        return False
    return checkpoint is not None and head is not None and checkpoint.last_commit_batch is not None and _caught_up(checkpoint, head)


def _starting(observation: Observation, wanted: Wanted, driver: Driver, restart: Restart, now: datetime) -> str:
    begun = driver.started_at or wanted.launched_at
    seconds = (now - begun).total_seconds() if begun else 0.0
    because = f"its driver with fence {driver.fence} has run for {seconds:.0f} s and committed nothing yet"
    if observation.status.value is not None and observation.status.value.waits_for:
        because += f", it waits for {observation.status.value.waits_for}"
    if seconds > restart.start_timeout_seconds:
        because += f": more than the {restart.start_timeout_seconds} s that a start may take"
    return because


def _dead(conclude: Conclude, observation: Observation, wanted: Wanted, driver: Driver, restart: Restart, now: datetime) -> Decision:
    mine = driver.fence == wanted.fence
    if mine and driver.asked:
        return conclude(Verdict.STARTING, Action.START, f"its driver with fence {driver.fence} was stopped through the host agent and it is wanted running")
    death = partial(conclude, Verdict.DEAD, detected_at=now)
    how = _how_it_ended(driver) if mine and driver.state is DriverState.EXITED else f"the host agent knows no driver with fence {wanted.fence}"
    if mine and driver.exit_code == ExitCode.CONFIG:
        return death(Action.WAIT, f"{how}: starting again cannot help, correct it and ask for a start")
    died_at = (driver.ended_at if mine else None) or wanted.ended_at or observation.driver.at
    deaths = wanted.deaths + (1 if wanted.ended_at is None else 0)
    not_before = start_not_before(restart, observation.stream, wanted.fence, deaths, died_at)
    if now < not_before:
        return death(Action.WAIT, f"{how}; start {deaths} after a death waits {(not_before - died_at).total_seconds():.0f} s", not_before=not_before)
    return death(Action.START, how)


def _how_it_ended(driver: Driver) -> str:
    if driver.exit_code is None:
        how = "ended, nobody saw how"
    elif driver.exit_code < 0:
        how = f"was ended by signal {-driver.exit_code}"
    elif driver.exit_code == ExitCode.STOPPED:
        how = "left though nobody had asked the host agent for it"
    else:
        known = {code.value: code.name for code in ExitCode}
        how = f"left with {driver.exit_code}" + (f" ({known[driver.exit_code]})" if driver.exit_code in known else "")
    return f"its driver with fence {driver.fence} {how}" + (f": {driver.exit_message}" if driver.exit_message else "")
