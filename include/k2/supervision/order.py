"""What streams owe each other when several must be restarted: Bronze before the Silver that reads it, and few at once.

Starts that somebody asked for wait for nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from k2.registry.observed import Action, Decision, DriverState, Observation, Verdict
from k2.registry.platform import Platform
from k2.supervision.verdicts import CALM, HUNG

ONE_CAUSE = timedelta(seconds=60)
"""Bronze and its Silver that die within this time died of one cause, and Silver waits so long for Bronze, never longer."""

STARTS_FOR = timedelta(seconds=60)
"""A restart takes its share of the machine for so long. One that takes longer waits for something else, and keeps nobody waiting."""
TURN_SECONDS = 15
"""As often as an action that is still due is told again."""

Pair = tuple[Observation, Decision]


def arrange(platform: Platform, seen: Sequence[Pair], now: datetime) -> list[Decision]:
    """The decisions on all streams, in their order, with restarts after trouble held back that are not due yet."""
    by_name = {decision.stream: (observation, decision) for observation, decision in seen}
    room = platform.restart.at_once - sum(_comes_back(pair, now) for pair in seen)
    due = sorted((pair for pair in seen if _is_restart(pair[1])), key=lambda pair: _rank(platform, pair, now))
    held: dict[str, Decision] = {}
    for observation, decision in due:
        feeder = by_name.get(platform.feeder_of(decision.stream) or "")
        if feeder is not None and (until := _waits_for(feeder, (observation, decision), now)):
            because = f"{decision.because}; {feeder[1].stream}, which it reads, died too and is started first"
            held[decision.stream] = replace(decision, action=Action.WAIT, because=because, not_before=until)
        elif room <= 0:
            because = f"{decision.because}; {platform.restart.at_once} other streams are on their way back, more are not started at once"
            held[decision.stream] = replace(decision, action=Action.WAIT, because=because, not_before=None)  # nobody knows when
        else:
            room -= 1
    return [held.get(decision.stream, decision) for _, decision in seen]


def _is_restart(decision: Decision) -> bool:
    return decision.action is Action.START and (decision.verdict is Verdict.DEAD or decision.verdict in HUNG)


def _comes_back(pair: Pair, now: datetime) -> bool:
    """Whether a stream was restarted after trouble lately and has not committed yet."""
    observation, decision = pair
    wanted, driver = observation.wanted.value, observation.driver.value
    if wanted is None or driver is None or driver.state is not DriverState.RUNNING or driver.fence != wanted.fence:
        return False
    if wanted.launch_detected_at is None or wanted.first_commit_at is not None or decision.verdict in CALM or _is_restart(decision):
        return False
    if wanted.verdict in CALM and wanted.verdict_since is not None and wanted.intent_at is not None and wanted.verdict_since > wanted.intent_at:
        return False  # an urgent look does not read what the last one did
    begun = driver.started_at or wanted.launched_at
    return begun is not None and now - begun < STARTS_FOR


def _rank(platform: Platform, pair: Pair, now: datetime) -> tuple[bool, int, bool, datetime, str]:
    """Bronze first, then by the time of the death. Those that have been due for long come last and by turns: some of them may be such as cannot be started."""
    decision = pair[1]
    overdue = decision.not_before is not None and now - decision.not_before >= STARTS_FOR
    turn = zlib.crc32(f"{decision.stream}@{now.timestamp() // TURN_SECONDS:.0f}".encode()) if overdue else 0
    bronze = platform.streams[decision.stream].type == "bronze"
    return overdue, turn, not bronze, _died_at(pair) or decision.detected_at or pair[0].at, decision.stream


def _died_at(pair: Pair) -> datetime | None:
    observation, decision = pair
    wanted, driver = observation.wanted.value, observation.driver.value
    if decision.verdict is not Verdict.DEAD or wanted is None or driver is None:
        return None
    return driver.ended_at if driver.fence == wanted.fence else wanted.ended_at


def _waits_for(feeder: Pair, reader: Pair, now: datetime) -> datetime | None:
    """Until when a dead reader waits for its dead feeder; None when it does not."""
    died, feeder_died = _died_at(reader), _died_at(feeder)
    if died is None or feeder_died is None or abs(died - feeder_died) > ONE_CAUSE:
        return None
    return died + ONE_CAUSE if died <= now < died + ONE_CAUSE else None
