"""Doing what was decided: start, stop, replace, end what is left over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from k2.launchers import stacks
from k2.launchers.client import AgentClient, AgentRefused, AgentUnavailable
from k2.launchers.retention import NotKnown
from k2.launchers.start import NotSafe, NotWanted, end_older, start
from k2.registry.observed import Action, Decision, DriverState
from k2.registry.platform import Platform
from k2.registry.runtime import Runtime
from k2.registry.wishes import Wish
from k2.state import database, incidents, streams, verdicts
from k2.supervision.verdicts import ACTS, HUNG
from k2.supervision.wishes import End, in_order

log = logging.getLogger(__name__)

AT_ONCE = 4
DRAINS = (Action.STOP, Action.REPLACE)
LOOK_AGAIN_SECONDS = 3.0
NOT_STARTED_FOR = timedelta(minutes=1)
NOT_STARTED_ADVICE = "What to do: mend what it names. The watchdog tries again at each look; ./k2 explain shows what it can read."


@dataclass(frozen=True)
class Done:
    """What became of one decision. `ok` is False when it failed and is still to be done."""

    stream: str
    action: Action
    ok: bool
    detail: str
    fence: int | None = None
    """Of the driver that was started or stopped; None when none was."""


def act(runtime: Runtime, decisions: Iterable[Decision], look_again: Callable[[], Iterable[Decision]] = lambda: ()) -> list[Done]:
    """Do what the decisions say, several streams at the same time. An error in one stream ends no other's action.

    A drain may take a minute: while something lasts, `look_again` is asked every few seconds for what is due for the other streams. Nothing
    is done twice about one: what was seen of it before its action ended is no reason for another.
    """
    doing: dict[str, Future[Done]] = {}
    # Apart, so that drains never keep a start from its turn.
    with AgentClient(runtime) as agent, ThreadPoolExecutor(AT_ONCE) as drains, ThreadPoolExecutor(AT_ONCE) as starts:

        def begin(decisions: Iterable[Decision]) -> None:
            for decision in in_turn([d for d in decisions if d.action in ACTS and d.stream not in doing], runtime.platform):
                pool = drains if decision.action in DRAINS else starts
                doing[decision.stream] = pool.submit(_act, runtime, agent, decision)

        begin(decisions)
        while wait(doing.values(), LOOK_AGAIN_SECONDS).not_done:
            begin(look_again())
        return [future.result() for future in doing.values()]


def in_turn(due: list[Decision], platform: Platform) -> list[Decision]:
    """Stops first, readers before what they read; then starts, the other way round."""
    by_name = {d.stream: d for d in due}
    stops = in_order(Wish.STOP, (d.stream for d in due if d.action is Action.STOP), platform)
    starts = in_order(Wish.START, (d.stream for d in due if d.action is not Action.STOP), platform)
    return [by_name[name] for name in [*stops, *starts]]


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
        stopped = _stop(runtime, agent, decision) if decision.action is Action.REPLACE else None
        started = start(
            runtime,
            agent,
            decision.stream,
            fence=decision.fence,
            generation=decision.generation,
            reason=decision.because,
            detected_at=decision.detected_at,
            decided_at=decided_at,
            old_end="hung" if decision.verdict in HUNG else "replaced",
        )
        detail = f"{'finished the start' if started.adopted else 'started'} with fence {started.fence} ({started.how})"
        if stopped is not None:
            detail += f"; before that, {stopped.detail}"
        return Done(decision.stream, decision.action, True, detail, started.fence)
    except (streams.LostRace, NotWanted) as error:
        return Done(decision.stream, decision.action, True, f"nothing left to do: {error}")
    except NotSafe as error:
        return Done(decision.stream, decision.action, True, f"held: {error}")
    except NotKnown as error:
        _tell_not_started(runtime, decision.stream, str(error))
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
        streams.ended(connection, decision.stream, running[0].fence, at=datetime.now(UTC), exit_code=ended.exit_code, reason=reason, drained=ended.drained)
    end = End(running[0].fence, ended.drained, ended.exit_code)
    if not ended.drained:
        log.warning("stop of %s: %s", decision.stream, end)
    return Done(decision.stream, decision.action, True, f"stopped: {end}", running[0].fence)


def _tell_not_started(runtime: Runtime, stream: str, why: str) -> None:
    """One incident for a stream that could not be started for long, because what a start would do cannot be known."""
    try:
        with database.connect(runtime, "control") as connection:
            since = verdicts.since(connection, stream)
            if since is None or datetime.now(UTC) - since < NOT_STARTED_FOR:
                return
            incidents.resolve_incident(connection, incidents.stream_key(stream), "it cannot be started, which is told of its own")
            incidents.open_incident(connection, incidents.held_key(stream), "page", f"Stream {stream} cannot be started", f"{why}\n{NOT_STARTED_ADVICE}")
    except database.StateUnavailable as error:
        log.error("that %s cannot be started could not be written down: %s", stream, error)


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
