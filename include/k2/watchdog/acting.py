"""Doing what was decided: start, stop, replace, end what is left over."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.launchers import stacks
from k2.launchers.client import AgentClient, AgentRefused, AgentUnavailable
from k2.launchers.start import NotSafe, NotWanted, end_older, start
from k2.registry.observed import Action, Decision, DriverState
from k2.registry.runtime import Runtime
from k2.state import database, incidents, streams
from k2.supervision.edges import ACTS, HUNG

log = logging.getLogger(__name__)

AT_ONCE = 4


@dataclass(frozen=True)
class Done:
    """What became of one decision. `ok` is False when it failed and is still to be done."""

    stream: str
    action: Action
    ok: bool
    detail: str
    fence: int | None = None
    drained: bool | None = None
    """Of a stop: whether the driver finished its batch; None when nothing ran."""


def act(runtime: Runtime, decisions: Iterable[Decision]) -> list[Done]:
    """Do what the decisions say, several streams at the same time. An error in one stream ends no other's action."""
    due = [d for d in decisions if d.action in ACTS]
    with AgentClient(runtime) as agent, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda decision: _act(runtime, agent, decision), due))


def _act(runtime: Runtime, agent: AgentClient, decision: Decision) -> Done:
    decided_at = datetime.now(UTC)
    try:
        if decision.action is Action.STOP:
            return _stop(runtime, agent, decision)
        if decision.action is Action.END_OLDER:
            killed = end_older(agent, decision.stream, decision.fence)
            return Done(decision.stream, decision.action, True, f"killed {killed} drivers with fences below {decision.fence}")
        if decision.verdict in HUNG:
            _keep_stacks(runtime, agent, decision)
        drained = _stop(runtime, agent, decision).drained if decision.action is Action.REPLACE else None
        last_commit_at = _last_commit_at(runtime, decision.stream)
        started = start(
            runtime,
            agent,
            decision.stream,
            fence=decision.fence,
            generation=decision.generation,
            reason=decision.because,
            last_commit_at=last_commit_at,
            detected_at=decision.detected_at,
            decided_at=decided_at,
            old_end="hung" if decision.verdict in HUNG else "replaced",
        )
        detail = f"{'finished the start' if started.adopted else 'started'} with fence {started.fence} ({started.how})"
        return Done(decision.stream, decision.action, True, detail, started.fence, drained)
    except (streams.LostRace, NotWanted) as error:
        return Done(decision.stream, decision.action, True, f"nothing left to do: {error}")
    except NotSafe as error:
        return Done(decision.stream, decision.action, True, f"held: {error}")
    except Exception as error:
        log.exception("%s of %s failed", decision.action, decision.stream)
        return Done(decision.stream, decision.action, False, f"{type(error).__name__}: {error}")


def _stop(runtime: Runtime, agent: AgentClient, decision: Decision) -> Done:
    """Drain the newest driver and kill older ones, unless something else is wanted by now. Raises NotWanted."""
    with database.connect(runtime, "control") as connection:
        wanted = streams.wanted(connection, decision.stream)
    if wanted.generation != decision.generation:
        raise NotWanted(f"{decision.stream} is now wanted {wanted.desired}, generation {wanted.generation}; the decision was for {decision.generation}")
    running = [d for d in agent.drivers().get(decision.stream, []) if d.state is DriverState.RUNNING]
    for older in running[1:]:
        agent.kill(decision.stream, older.fence)
    if not running:
        return Done(decision.stream, decision.action, True, "no driver ran")
    ended = agent.stop(decision.stream, running[0].fence, runtime.platform.restart.drain_timeout_seconds)
    reason = "replaced" if decision.action is Action.REPLACE else "stopped"
    with database.connect(runtime, "control") as connection:
        streams.ended(connection, decision.stream, running[0].fence, at=datetime.now(UTC), exit_code=ended.exit_code, reason=reason)
    how = "drained" if ended.drained else f"not drained, exit code {ended.exit_code}"
    return Done(decision.stream, decision.action, True, f"stopped fence {running[0].fence}: {how}", running[0].fence, ended.drained)


def _keep_stacks(runtime: Runtime, agent: AgentClient, decision: Decision) -> None:
    """Keep what the threads of a driver that hangs are doing, before it is killed, and tell where it stands with the incident."""
    try:
        path = agent.dump(decision.stream, decision.fence)
        if not path:
            return
        evidence = f"{stacks.where(Path(path).read_text(errors='replace'))}\nAll threads: {path}".strip()
        with database.connect(runtime, "control") as connection:
            incidents.add_evidence(connection, incidents.stream_key(decision.stream), evidence)
    except (AgentUnavailable, AgentRefused, OSError, database.StateUnavailable) as error:
        log.warning("no stacks of %s: %s", decision.stream, error)


def _last_commit_at(runtime: Runtime, stream: str) -> datetime | None:
    try:
        return read_tail(runtime.checkpoint(stream)).last_commit_at
    except CheckpointUnreadable as error:
        log.warning("the ledger lacks the last commit of %s: %s", stream, error)
        return None
