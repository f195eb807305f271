"""The start of a driver: raise the fence and record the intent, end the old drivers, launch, record the launch.

Interrupted anywhere, it is continued and never repeated: an intent without a launch is launched under its own fence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from k2.checkpoints.guard import rewound
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.launchers.client import AgentClient
from k2.registry.observed import Driver, DriverState, Wanted
from k2.registry.runtime import Runtime
from k2.state import database, streams

LOCK_WAIT_MS = 5000


class NotSafe(RuntimeError):
    """The stream's checkpoint is not the one that it was, or cannot be read: a start could write again what was written."""


class NotWanted(RuntimeError):
    """Between the decision and the start, what people want of the stream changed. Look again."""


@dataclass(frozen=True)
class Started:
    """`adopted`: the intent was there already, and this call only finished it."""

    fence: int
    how: str
    adopted: bool
    driver: Driver


def has_open_intent(wanted: Wanted) -> bool:
    """Whether a start for the current generation was recorded and not seen through."""
    return wanted.intent_at is not None and wanted.launched_at is None and wanted.ended_at is None and wanted.launch_generation == wanted.generation


def start(
    runtime: Runtime,
    agent: AgentClient,
    stream: str,
    *,
    fence: int,
    generation: int,
    reason: str,
    last_commit_at: datetime | None = None,
    detected_at: datetime | None = None,
    decided_at: datetime | None = None,
    old_end: str = "replaced",
) -> Started:
    """Start the driver of a stream for which `fence` and `generation` were seen.

    A start that answers a trouble, detected at `detected_at`, may use a spare. `old_end` is what the ledger says of the
    driver before, where nothing was said yet.

    Raises streams.LostRace or NotWanted when they are no longer current, NotSafe, database.StateUnavailable,
    client.AgentUnavailable or client.AgentRefused. After any of them the next look finds what is left to do.
    """

    def intend() -> tuple[int, bool, bool]:
        with database.connect(runtime, "control") as connection:
            connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
            wanted = streams.wanted(connection, stream)
            if wanted.desired != "running" or wanted.generation != generation:
                raise NotWanted(f"{stream} is now wanted {wanted.desired}, generation {wanted.generation}; the start was for generation {generation}")
            if wanted.fence != fence:
                raise streams.LostRace(f"the fence of {stream} is {wanted.fence}, no longer {fence}: another watchdog has started it")
            if has_open_intent(wanted):
                return fence, True, wanted.launch_detected_at is not None
            _guard(runtime, stream, wanted)
            # An end that nobody saw is known by now only as this start's reason to be.
            streams.ended(connection, stream, fence, at=datetime.now(UTC), exit_code=None, reason=old_end)
            raised = streams.raise_fence(
                connection,
                stream,
                seen=fence,
                generation=generation,
                reason=reason,
                last_commit_at=last_commit_at,
                detected_at=detected_at,
                decided_at=decided_at,
            )
            return raised, False, detected_at is not None

    try:
        current, adopted, troubled = intend()
    except psycopg.errors.LockNotAvailable:
        # A driver that was stopped in the middle of its commit holds the stream's row: end it, then take the row.
        end_older(agent, stream, fence + 1)
        current, adopted, troubled = intend()
    end_older(agent, stream, current)
    driver = agent.launch(stream, current, spare=troubled)
    with database.connect(runtime, "control") as connection:
        streams.launched(connection, stream, current, driver.how)
    return Started(current, driver.how, adopted, driver)


def _guard(runtime: Runtime, stream: str, wanted: Wanted) -> None:
    try:
        how = rewound(wanted, read_tail(runtime.checkpoint(stream)))
    except CheckpointUnreadable as error:
        raise NotSafe(str(error)) from error
    if how:
        raise NotSafe(how)


def end_older(agent: AgentClient, stream: str, fence: int) -> int:
    """Kill every driver of the stream that runs with a lower fence. Returns how many."""
    older = [d for d in agent.drivers().get(stream, []) if d.fence < fence and d.state is DriverState.RUNNING]
    for driver in older:
        agent.kill(stream, driver.fence)
    return len(older)
