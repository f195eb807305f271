"""The start of a driver: raise the fence and record the intent, end the old drivers, launch, record the launch.

Interrupted anywhere, it is continued and never repeated: an intent without a launch is launched under its own fence.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from k2.checkpoints.aside import move_aside, take_new_identity
from k2.checkpoints.entries import Refused
from k2.checkpoints.guard import rewound
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.checkpoints.retention import Loss
from k2.launchers import rebuilding
from k2.launchers.client import AgentClient, AgentUnavailable
from k2.launchers.retention import NotKnown, Preflight
from k2.registry.observed import Checkpoint, DriverState, Wanted
from k2.registry.runtime import Runtime
from k2.state import database, retired, streams
from k2.state.locks import WAIT_MS, Locked, lock_checkpoint

log = logging.getLogger(__name__)

RETIRED_ADVICE = "use streams_control with restore to bring it back, or with rebuild to have another one made from its tables"


class NotSafe(RuntimeError):
    """A start could write again what was written, or pass something by: another checkpoint, or a source that no longer holds its place."""


class _LossAhead(Exception):
    """The source no longer holds the place where the stream goes on."""

    def __init__(self, loss: Loss, *, adopted: bool) -> None:
        super().__init__(loss.sentence)
        self.loss = loss
        self.adopted = adopted


class _Overtaken(Exception):
    """The stream's table has batches of the same query that the checkpoint, which a person has adopted, has not planned yet."""


class _ToRebuild(Exception):
    """A person wants the checkpoint made again, which is done when the older drivers have ended: one that lives writes into the old one."""


class NotWanted(RuntimeError):
    """Between the decision and the start, what people want of the stream changed. Look again."""


@dataclass(frozen=True)
class Started:
    """`adopted`: the intent was there already, and this call only finished it."""

    fence: int
    how: str
    adopted: bool


@dataclass(frozen=True)
class _Intent:
    """A start that is recorded. `troubled`: it answers a trouble; `lost`: the offsets that its driver may skip."""

    fence: int
    adopted: bool
    troubled: bool
    lost: Mapping[str, Sequence[int]] | None


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
    detected_at: datetime | None = None,
    decided_at: datetime | None = None,
    old_end: str = "replaced",
) -> Started:
    """Start the driver of a stream for which `fence` and `generation` were seen.

    A start that answers a trouble, detected at `detected_at`, may use a spare. `old_end` is what the ledger says of the
    driver before, where nothing was said yet.

    Raises streams.LostRace or NotWanted when they are no longer current, NotSafe, retention.NotKnown, database.StateUnavailable,
    client.AgentUnavailable or client.AgentRefused. After any of them the next look finds what is left to do.
    """
    preflight = Preflight(runtime, stream)

    def intend(*, moved_aside: bool = False, older_ended: bool = False) -> _Intent:
        with _alone(runtime, stream, fence, generation) as (connection, wanted):
            if not wanted.rebuilding and (tombstone := retired.of(connection, runtime.checkpoint(stream).name)):
                raise NotKnown(f"{tombstone}: {RETIRED_ADVICE}")
            if has_open_intent(wanted):
                return _Intent(fence, True, wanted.launch_detected_at is not None, streams.accepted_loss(connection, stream, fence))
            if wanted.rebuilding and not older_ended:
                raise _ToRebuild
            loss, begins_after = (None, None) if moved_aside or wanted.rebuilding else _guard(runtime, connection, stream, wanted, preflight)
            # An end that nobody saw is known by now only as this start's reason to be.
            streams.ended(connection, stream, fence, at=datetime.now(UTC), exit_code=None, reason=old_end)
            raised = streams.raise_fence(
                connection,
                stream,
                seen=fence,
                generation=generation,
                reason=reason,
                detected_at=detected_at,
                decided_at=decided_at,
                begins_after=begins_after,
            )
            if wanted.rebuilding:
                _rebuild(runtime, connection, stream, raised, wanted)
            if moved_aside:
                streams.expect_new_checkpoint(connection, stream)
            if _is_adopted(wanted) and not wanted.rebuilding:
                streams.record_adoption(connection, stream, raised, loss.lost if loss else None)
            return _Intent(raised, False, detected_at is not None, loss.lost if loss else None)

    try:
        try:
            intent = intend()
        except (psycopg.errors.LockNotAvailable, _ToRebuild):
            # A driver that was stopped in the middle of its commit holds the stream's row: end it, then take the row.
            end_older(agent, stream, fence + 1)
            intent = intend(older_ended=True)
    except _LossAhead as ahead:
        if not ahead.adopted:
            with database.connect(runtime, "control") as connection:
                connection.execute(f"SET LOCAL lock_timeout = {WAIT_MS}")
                streams.hold(connection, stream, generation, ahead.loss.sentence)
            raise NotSafe(ahead.loss.sentence) from None
        end_older(agent, stream, fence + 1)
        with _alone(runtime, stream, fence, generation) as (connection, _):
            streams.expect_new_checkpoint(connection, stream)
            _out_of_the_way(move_aside, runtime.checkpoint(stream), fence + 1)
        intent = intend(moved_aside=True)
    except _Overtaken:
        end_older(agent, stream, fence + 1)
        with _alone(runtime, stream, fence, generation):
            _out_of_the_way(take_new_identity, runtime.checkpoint(stream), fence + 1)
        intent = intend()
    try:
        end_older(agent, stream, intent.fence)
    except AgentUnavailable as error:
        # The fence keeps it from committing; that its process is gone is nothing to wait for.
        log.warning("older drivers of %s could not be ended before the one with fence %s is launched: %s", stream, intent.fence, error)
    if intent.lost is not None:
        path = runtime.accepted_loss(stream, intent.fence)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(intent.lost))
    driver = agent.launch(stream, intent.fence, spare=intent.troubled)
    with database.connect(runtime, "control") as connection:
        streams.launched(connection, stream, intent.fence, driver.how)
    return Started(intent.fence, driver.how, intent.adopted)


@contextmanager
def _alone(runtime: Runtime, stream: str, fence: int, generation: int) -> Iterator[tuple[database.Connection, Wanted]]:
    """A transaction that holds the stream's checkpoint, while the start that was decided on is still what is wanted.

    Raises streams.LostRace, NotWanted, retention.NotKnown or database.StateUnavailable.
    """
    with database.connect(runtime, "control") as connection:
        try:
            lock_checkpoint(connection, runtime.checkpoint(stream).name)
        except Locked as error:
            raise NotKnown(str(error)) from error
        wanted = streams.wanted(connection, stream)
        if wanted.desired != "running" or wanted.generation != generation:
            raise NotWanted(f"{stream} is now wanted {wanted.desired}, generation {wanted.generation}; the start was for generation {generation}")
        if wanted.fence != fence:
            raise streams.LostRace(f"the fence of {stream} is {wanted.fence}, no longer {fence}: another watchdog has started it")
        yield connection, wanted


def _rebuild(runtime: Runtime, connection: database.Connection, stream: str, fence: int, wanted: Wanted) -> None:
    """Make the checkpoint again in the transaction that has raised the fence: whatever is interrupted before that commits is done again.

    Raises _LossAhead when it cannot be made, or would lose more than whoever approved it was told, and NotKnown.
    """
    told = streams.rebuild_told(connection, stream)
    assert told is not None, "recorded with the generation"
    try:
        made = rebuilding.plan(runtime, connection, stream, told["query"], wanted)
    except rebuilding.Impossible as error:
        raise _LossAhead(Loss(str(error)), adopted=False) from None
    if rebuilding.loses_more(told, made):
        raise _LossAhead(Loss(f"to make its checkpoint again would lose more by now than whoever approved it was told: {made.sentence()}"), adopted=False)
    rebuilding.replace(made, runtime.checkpoint(stream), fence)
    retired.forget(connection, runtime.checkpoint(stream).name)
    streams.expect_new_checkpoint(connection, stream)
    streams.record_rebuild(connection, stream, fence, rebuilding.lost(made), rebuilding.begins_after(made))


def _out_of_the_way(move: Callable[[Path, int], object], checkpoint: Path, fence: int) -> None:
    """Raises NotKnown for a checkpoint that cannot be moved or copied as it is."""
    try:
        move(checkpoint, fence)
    except Refused as error:
        raise NotKnown(str(error)) from error


def _guard(runtime: Runtime, connection: database.Connection, stream: str, wanted: Wanted, preflight: Preflight) -> tuple[Loss | None, int | None]:
    """The loss that a person has accepted, None when nothing would be lost, and the last committed batch.

    Raises NotSafe, _LossAhead, _Overtaken or retention.NotKnown.
    """
    try:
        checkpoint = read_tail(runtime.checkpoint(stream))
    except CheckpointUnreadable as error:
        raise NotKnown(str(error)) from error
    if how := rewound(wanted, checkpoint):
        raise NotSafe(how)
    loss, adopted = preflight.loss(connection, checkpoint), _is_adopted(wanted)
    if loss is not None:
        told = streams.adopted_loss(connection, stream) if adopted else None
        accepted = told is not None and Loss.of(told).covers(loss)
        if not (accepted and loss.lost):
            raise _LossAhead(loss, adopted=accepted)
    # A checkpoint that is the one it was has planned all that its table has.
    newest = preflight.overtaken(connection, checkpoint) if adopted or wanted.known_query_id is None else None
    if newest is not None:
        if adopted:
            raise _Overtaken
        raise _LossAhead(_old_copy(checkpoint, newest), adopted=False)
    return loss, checkpoint.last_commit_batch


def _old_copy(checkpoint: Checkpoint, newest: int) -> Loss:
    """Why a checkpoint that nobody has adopted is not started from."""
    return Loss(
        f"its checkpoint ends with batch {checkpoint.last_offset_batch} of query {checkpoint.query_id}, and its table has batch {newest} of that already"
    )


def _is_adopted(wanted: Wanted) -> bool:
    """Whether a person lets the stream go on from what is there. The first commit uses that up: what is lost later needs another word."""
    return wanted.adopted_generation == wanted.generation and (wanted.launch_generation != wanted.generation or wanted.first_commit_at is None)


def end_older(agent: AgentClient, stream: str, fence: int) -> int:
    """Kill every driver of the stream that runs with a lower fence. Returns how many."""
    older = [d for d in agent.drivers().get(stream, []) if d.fence < fence and d.state is DriverState.RUNNING]
    for driver in older:
        agent.kill(stream, driver.fence)
    return len(older)
