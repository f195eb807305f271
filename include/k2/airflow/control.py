"""What a person wants of the streams: recorded with its reason, and compared with what became of it.

Only the watchdog acts on streams. This module writes down wishes and reads how far they are fulfilled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from k2.registry.observed import Failure, Verdict, Wanted
from k2.registry.platform import Platform
from k2.registry.runtime import Runtime
from k2.supervision.failures import poison

ALIVE = frozenset({Verdict.IDLE, Verdict.PROGRESSING})


class Wish(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    ADOPT = "adopt"
    """Start it from its checkpoint as that is now, though it is not what was seen before."""
    SKIP_POISON = "skip-poison"
    """Send the records that a POISONED stream fails at to the dead-letter table, and start it."""

    @property
    def desired(self) -> str:
        return "stopped" if self is Wish.STOP else "running"


class Selection(StrEnum):
    """Words of the form that name several streams."""

    ALL = "all"
    BRONZE = "bronze"
    SILVER = "silver"


@dataclass(frozen=True)
class Progress:
    """How far one wish is. `over` without `reached`: it will not come true any more."""

    reached: bool
    over: bool
    because: str


def select(choice: str, platform: Platform) -> list[str]:
    """The streams that a choice of the form names. Raises ValueError for an unknown one, or one that names none."""
    if choice == Selection.ALL:
        return list(platform.streams)
    if choice in (Selection.BRONZE, Selection.SILVER):
        found = [name for name, spec in platform.streams.items() if spec.type == choice]
        if found:
            return found
    elif choice in platform.streams:
        return [choice]
    raise ValueError(f"stream: {choice!r} names no stream: use one of {', '.join(platform.streams)}, {', '.join(Selection)}")


def fulfilled_already(wish: Wish, wanted: Wanted) -> bool:
    """Whether recording the wish again would only disturb: a start of what was launched and lives, a stop of what is to be stopped.

    A restart is never fulfilled beforehand; a start of a stream that is down asks again, at once.
    """
    if wish is Wish.STOP:
        return wanted.desired == "stopped"
    return wish is Wish.START and wanted.desired == "running" and wanted.launched_at is not None and wanted.ended_at is None


def to_skip(platform: Platform, stream: str, wanted: Wanted) -> Failure:
    """What the stream's last deaths blame. Raises ValueError when there is nothing that could be skipped."""
    if platform.streams[stream].type == "bronze":
        raise ValueError(
            f"stream: {stream!r} is a Bronze stream, which keeps every record as it is, so none can be its poison: "
            "read its log, mend the cause, and use the action start"
        )
    found = poison(wanted.lately)
    if found is None or wanted.ended_at is None:
        raise ValueError(f"stream: {stream!r} is not held as {Verdict.POISONED}: there is nothing to skip")
    return found


def progress(desired: str, generation: int, wanted: Wanted, verdict: Verdict | None, because: str) -> Progress:
    """Compare a wish, recorded as `generation`, with the ledger and with the watchdog's last verdict."""
    if wanted.generation > generation and wanted.desired != desired:
        return Progress(False, True, f"a later request wants it {wanted.desired}")
    lives = wanted.launch_generation is not None and wanted.ended_at is None
    if desired == "stopped":
        if not lives:
            return Progress(True, True, "its driver has ended")
        return Progress(False, False, f"its driver still runs: {verdict or 'no verdict yet'}: {because}")
    if not lives or (wanted.launch_generation or 0) < generation:
        return Progress(False, False, f"no driver was launched for this request yet: {verdict or 'no verdict yet'}: {because}")
    if wanted.first_commit_at is not None:
        return Progress(True, True, "its driver has committed")
    if verdict in ALIVE:
        return Progress(True, True, f"{verdict}: {because}")
    return Progress(False, False, f"launched, no commit yet: {verdict or 'no verdict yet'}: {because}")


def record(runtime: Runtime, streams: Iterable[str], wish: Wish, *, who: str, reason: str) -> dict[str, int]:
    """Write down the wish for each stream, all or none. Returns the generation to wait for, per stream."""
    from k2.state import audit, skips
    from k2.state import streams as state
    from k2.state.database import connect

    wants = {}
    with connect(runtime, "control") as connection:
        for stream in streams:
            now = state.wanted(connection, stream)
            if fulfilled_already(wish, now):
                state_now = {"desired": now.desired, "generation": now.generation, "fence": now.fence}
                audit.record(connection, who=who, action=wish, target=stream, reason=reason, state=state_now)
                wants[stream] = now.generation
            else:
                if wish is Wish.ADOPT:
                    state.forget_checkpoint(connection, stream)
                if wish is Wish.SKIP_POISON:
                    skips.add(connection, stream, to_skip(runtime.platform, stream, now), who=who, reason=reason)
                wants[stream] = state.want(connection, stream, wish.desired, who=who, action=wish, reason=reason)
    return wants


def read_progress(runtime: Runtime, desired: str, wants: dict[str, int]) -> dict[str, Progress]:
    """How far each wish is now."""
    from k2.state import streams as state
    from k2.state.database import connect

    found = {}
    with connect(runtime, "control") as connection:
        rows = connection.execute("SELECT stream, verdict, because FROM k2.verdicts").fetchall()
        verdicts = {row["stream"]: (Verdict(row["verdict"]), row["because"]) for row in rows}
        for stream, generation in wants.items():
            verdict, because = verdicts.get(stream, (None, "the watchdog has not looked yet"))
            found[stream] = progress(desired, generation, state.wanted(connection, stream), verdict, because)
    return found
