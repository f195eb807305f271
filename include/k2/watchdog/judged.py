"""One observation judged."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from k2.checkpoints.reader import CheckpointUnreadable, first_commit_after, read_tail
from k2.probes.reading import failed
from k2.registry.observed import Action, Decision, Observation, Reading, Verdict
from k2.registry.platform import Platform
from k2.registry.runtime import Runtime
from k2.supervision.conclude import past
from k2.supervision.judge import judge
from k2.supervision.order import arrange

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """One stream at one moment. `observation.wanted` has the first commit that this look itself found."""

    observation: Observation
    decision: Decision
    first_commit_found: bool = False


def examine(runtime: Runtime, observation: Observation, now: datetime) -> Look:
    """Judge one observation. What cannot be judged is unknown: a mistake in judging one stream is not to stop the others' supervision."""
    try:
        return _examine(runtime, observation, now)
    except Exception as error:
        log.exception("%s cannot be judged", observation.stream)
        fence = observation.wanted.value.fence if observation.wanted.value else 0
        because = f"judging it failed, which is a mistake in k2: {type(error).__name__}: {error}"
        return Look(observation, Decision(observation.stream, Verdict.UNKNOWN, Action.NONE, because, fence=fence))


def _examine(runtime: Runtime, observation: Observation, now: datetime) -> Look:
    """The same, having looked for the first commit that the database does not know of yet."""
    wanted, driver = observation.wanted.value, observation.driver.value
    found = False
    if wanted is not None and driver is not None and wanted.first_commit_at is None and driver.fence == wanted.fence and driver.started_at is not None:
        path = runtime.checkpoint(observation.stream)
        try:
            if first := first_commit_after(path, past(driver.started_at, now), wanted.begins_after):
                found = True
                wanted = replace(wanted, first_commit_at=first[1], first_commit_batch=first[0])
                observation = replace(observation, wanted=replace(observation.wanted, value=wanted), checkpoint=Reading(now, read_tail(path)))
        except CheckpointUnreadable as error:
            observation = replace(observation, checkpoint=failed(now, error))
    platform = runtime.platform
    return Look(observation, judge(platform.streams[observation.stream], observation, platform.restart, now), found)


def judge_all(runtime: Runtime, observations: Iterable[Observation], now: datetime) -> list[Look]:
    """Every stream judged, with what must wait for other streams held back."""
    return in_order(runtime.platform, [examine(runtime, observation, now) for observation in observations], now)


def in_order(platform: Platform, looks: Sequence[Look], now: datetime) -> list[Look]:
    """The looks at all streams, with what must wait for other streams held back."""
    decisions = arrange(platform, [(found.observation, found.decision) for found in looks], now)
    return [replace(found, decision=decision) for found, decision in zip(looks, decisions, strict=True)]


def dated(found: Look, known: dict[str, datetime]) -> Look:
    """A death that an earlier look had seen, by stream in `known`, keeps the moment of that one."""
    since, wanted = known.get(found.decision.stream), found.observation.wanted.value
    if found.decision.verdict is not Verdict.DEAD or since is None or wanted is None or wanted.intent_at is None or since < wanted.intent_at:
        return found
    return replace(found, decision=replace(found.decision, detected_at=since))
