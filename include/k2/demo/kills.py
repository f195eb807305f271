"""Kills drivers with -9 and reads from the ledger of launches how they came back."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from k2.launchers.records import living_driver
from k2.processes import family
from k2.registry.runtime import Runtime
from k2.state.database import connect
from k2.state.streams import launches


@dataclass(frozen=True)
class Kill:
    """One driver killed: Python and its JVM, with SIGKILL."""

    stream: str
    fence: int
    pids: tuple[int, ...]
    at: datetime


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill to each step of the way back; None for a step not reached."""

    kill: Kill
    detected: float | None
    decided: float | None
    launched: float | None
    first_commit: float | None


def kill_driver(runtime: Runtime, stream: str) -> Kill | None:
    """Kill -9 the living driver of a stream. None when there is none to kill."""
    living = living_driver(runtime, stream)
    if living is None:
        return None
    fence, process = living
    members = family([process])
    at = datetime.now(UTC)
    killed = [member.pid for member in members if member.send(signal.SIGKILL)]
    return Kill(stream, fence, tuple(killed), at)


def recoveries(runtime: Runtime, kills: Iterable[Kill]) -> list[Recovery]:
    """How far each killed stream has come back, by the ledger. A successor that died too is part of the way."""
    with connect(runtime, "reader") as connection:
        return follow(list(kills), launches(connection))


def follow(kills: Sequence[Kill], rows: Sequence[Mapping[str, Any]]) -> list[Recovery]:
    """The same, from the ledger's rows in their order."""
    result = []
    for kill in kills:
        next_kill = min((other.fence for other in kills if other.stream == kill.stream and other.fence > kill.fence), default=math.inf)
        way = [row for row in rows if row["stream"] == kill.stream and kill.fence < row["fence"] <= next_kill]
        moments = [way[0][name] if way else None for name in ("detected_at", "intent_at", "launched_at")]
        moments.append(next((row["first_commit_at"] for row in way if row["first_commit_at"]), None))
        result.append(Recovery(kill, *((at - kill.at).total_seconds() if at else None for at in moments)))
    return result
