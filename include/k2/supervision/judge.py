"""The decision rule. Three inputs are weighed together: the launcher's word, the checkpoint and the head of the source."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from k2.checkpoints.guard import rewound
from k2.registry.observed import Action, Death, Decision, Driver, DriverState, ExitCode, FailureClass, Observation, Verdict, Wanted
from k2.registry.platform import Restart, Stream
from k2.supervision.breaker import closed_until
from k2.supervision.conclude import READING_LIMIT, Conclude, past, unusable, usable
from k2.supervision.dependencies import KAFKA, answers
from k2.supervision.failures import UNCOUNTED, blame, deaths, poison, streak
from k2.supervision.policy import start_not_before
from k2.supervision.progress import judge_running

INTENT_GRACE = timedelta(seconds=3)
"""How long a start that another watchdog recorded is left to it before it is finished in its place."""


def judge(spec: Stream, observation: Observation, restart: Restart, now: datetime) -> Decision:
    """The verdict on one stream and what follows from it. Total: every combination of readings has an answer."""
    unknown = partial(Decision, observation.stream, Verdict.UNKNOWN, Action.NONE)
    for name, reading in (("what is wanted", observation.wanted), ("the driver", observation.driver)):
        if why := unusable(reading, now):
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
    # A checkpoint that was read before what is known of it may lag behind that.
    checkpoint = usable(observation.checkpoint, now) if observation.checkpoint.at >= observation.wanted.at else None
    how = wanted.held_for or (rewound(wanted, checkpoint) if checkpoint is not None and not wanted.rebuilding else None)
    if how is None and checkpoint is None and not wanted.rebuilding and wanted.verdict == Verdict.REWIND and wanted.known_batch is not None:
        how = "the last look at its checkpoint found that it is not the one that it was"
    if how:
        action = Action.STOP if driver.state is DriverState.RUNNING else Action.NONE
        because = f"{how}: it is held until somebody has decided what is right (streams_control: rebuild or adopt)"
        return conclude(Verdict.REWIND, action, because, detected_at=now)
    if wanted.launch_generation is None or wanted.launch_generation < wanted.generation:
        return _requested(conclude, wanted, driver)
    if driver.fence < wanted.fence and wanted.launched_at is None and wanted.ended_at is None:
        return _intended(conclude, wanted, now)
    if driver.fence == wanted.fence and driver.state is DriverState.RUNNING:
        if living := [d for d in observation.others if d.state is DriverState.RUNNING]:
            because = f"its driver with fence {living[0].fence} lives beside the one with fence {driver.fence}"
            return conclude(Verdict.SPLIT_BRAIN, Action.END_OLDER, because, detected_at=now)
        return judge_running(conclude, observation, spec, restart, now)
    return _dead(conclude, observation, spec, wanted, driver, restart, now)


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
    ready = past(wanted.intent_at, now) + INTENT_GRACE
    if now < ready:
        return conclude(Verdict.STARTING, Action.WAIT, f"a start with fence {wanted.fence} is under way", not_before=ready)
    return conclude(Verdict.STARTING, Action.START, f"a start with fence {wanted.fence} was recorded and not finished")


def _dead(conclude: Conclude, observation: Observation, spec: Stream, wanted: Wanted, driver: Driver, restart: Restart, now: datetime) -> Decision:
    mine = driver.fence == wanted.fence
    if mine and driver.asked:
        return conclude(Verdict.STARTING, Action.START, f"its driver with fence {driver.fence} was stopped through the host agent and it is wanted running")
    how = _how_it_ended(driver) if mine and driver.state is DriverState.EXITED else f"the host agent knows no driver with fence {wanted.fence}"
    if observation.checkpoint.error and now - observation.checkpoint.at <= READING_LIMIT:
        how += f"; its checkpoint cannot be read: {observation.checkpoint.error}"
    checkpoint = usable(observation.checkpoint, now)
    lately = deaths(wanted, driver, checkpoint)
    newest = lately[0] if lately and lately[0].fence == wanted.fence else None
    kind = newest.kind if newest else FailureClass.INFRASTRUCTURE
    death = partial(conclude, Verdict.DEAD, detected_at=now)
    if kind is FailureClass.CONFIG:
        return death(Action.NONE, f"{how}: starting again cannot help, correct it and ask for a start")
    if kind is FailureClass.INCOMPATIBLE:
        because = f"{how}: starting again cannot help, and could lose data; it is held until somebody asks for a start"
        return conclude(Verdict.INCOMPATIBLE, Action.NONE, because, detected_at=now)
    if found := poison(lately):
        because = f"batch {found.batch} failed a second time with {found.fingerprint}; to blame: {blame(found)}; {how}"
        return conclude(Verdict.POISONED, Action.NONE, because, detected_at=now)
    died_at = past((driver.ended_at if mine else None) or wanted.ended_at or observation.driver.at, now)
    if until := closed_until(restart, lately, wanted.generation, now):
        at = f", at batch {checkpoint.last_offset_batch}" if checkpoint is not None and checkpoint.in_flight else ""
        because = f"it died again and again without getting on{at}; the next attempt is at {until:%H:%M:%S} UTC, a start on request at once; {how}"
        return conclude(Verdict.CRASH_LOOP, Action.WAIT, because, not_before=until, detected_at=now)
    if kind is FailureClass.DEPENDENCY and (held := _away(conclude, observation, newest, how, now)):
        return held
    if spec.reads is None and (held := _before_kafka(conclude, observation, wanted, how, now)):
        return held
    counted = wanted.deaths + (1 if wanted.ended_at is None else 0)
    if kind in UNCOUNTED:
        counted = streak(lately)
    not_before = start_not_before(restart, observation.stream, wanted.fence, counted, died_at)
    if now < not_before:
        return death(Action.WAIT, f"{how}; start {counted} after a death waits {(not_before - died_at).total_seconds():.0f} s", not_before=not_before)
    return death(Action.START, how, not_before=not_before)


def _away(conclude: Conclude, observation: Observation, death: Death | None, how: str, now: datetime) -> Decision | None:
    """The hold of a stream whose dependency does not answer the watchdog either; None when it does."""
    dependency = death.failure.dependency if death else None
    if dependency is None or answers(observation, dependency, now):
        return None
    hold = partial(conclude, Verdict.WAITING_DEPENDENCY, Action.WAIT, detected_at=now)
    if answers(observation, dependency, now) is None:
        return hold(f"{how}; whether {dependency} answers now is not known yet")
    return hold(f"{how}; {dependency} does not answer the watchdog either: it is started as soon as it does", dependency=dependency)


def _before_kafka(conclude: Conclude, observation: Observation, wanted: Wanted, how: str, now: datetime) -> Decision | None:
    """The hold of a stream whose start would have to ask Kafka in vain. A look that has not asked leaves one that waits waiting."""
    hold = partial(conclude, Verdict.WAITING_DEPENDENCY, Action.WAIT, detected_at=now)
    known = answers(observation, KAFKA, now)
    if known is False:
        return hold(f"{how}; Kafka does not answer the watchdog, and a start would have to ask it: it is started as soon as it does", dependency=KAFKA)
    if known is None and wanted.verdict == Verdict.WAITING_DEPENDENCY:
        return hold(f"{how}; whether what it waited for answers now is not known yet")
    return None


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
    if driver.failure and driver.failure.fingerprint:
        how += f" with {driver.failure.fingerprint}" + (f" at batch {driver.failure.batch}" if driver.failure.batch is not None else "")
    return f"its driver with fence {driver.fence} {how}" + (f": {driver.exit_message}" if driver.exit_message else "")
