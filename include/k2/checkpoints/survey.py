"""Examines the checkpoints of a platform, each beside what it is compared with: what people want of its stream, what its source still holds, earlier sizes."""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from k2.checkpoints import contents
from k2.checkpoints.contents import SourceKind
from k2.checkpoints.doctor import Finding, Health, Surroundings
from k2.checkpoints.examine import Examination, NotACheckpoint, examine, folders
from k2.checkpoints.guard import rewound
from k2.checkpoints.names import printable
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.launchers.retention import NotKnown, Preflight
from k2.probes.history import read_chain
from k2.probes.state import StateProbe
from k2.registry.history import NO_SNAPSHOT
from k2.registry.observed import Checkpoint, Wanted
from k2.registry.runtime import Runtime
from k2.state import retired, sizes
from k2.state.database import StateUnavailable

log = logging.getLogger(__name__)


def claimed(runtime: Runtime) -> dict[str, str]:
    """Each folder that a declared stream claims, and which."""
    return {spec.checkpoint: name for name, spec in runtime.platform.streams.items()}


def examine_all(runtime: Runtime, now: datetime, names: list[str] | None = None) -> list[Examination]:
    """Examine the named folders below the checkpoints' root, or all: those that streams claim, then the others.

    Raises OSError when the root cannot be listed.
    """
    names = folders(runtime.checkpoints, claimed(runtime)) if names is None else names
    around = read(runtime, names, now)
    found = []
    for name in names:
        try:
            found.append(examine(runtime.checkpoints / name, around[name], now))
        except NotACheckpoint as error:
            found.append(_unknown(name, around[name].stream, str(error), "move away what is no checkpoint"))
        except Exception as error:  # one folder, whatever is in it, keeps nobody from hearing of the others
            log.exception("%s could not be examined", printable(name))
            found.append(_unknown(name, around[name].stream, f"{type(error).__name__}: {printable(str(error))}", "examine it by hand"))
    return found


def _unknown(name: str, stream: str | None, why: str, fix: str) -> Examination:
    finding = Finding(Health.UNKNOWN, why, "nothing can be said of it, and nothing is removed here", fix)
    return Examination(printable(name), stream, exists=True, health=Health.UNKNOWN, findings=(finding,))


def read(runtime: Runtime, names: list[str], now: datetime) -> dict[str, Surroundings]:
    """The surroundings of each folder below the checkpoints' root. What cannot be read is said in them."""
    claims = claimed(runtime)
    limit = runtime.platform.thresholds.checkpoint_mb.yellow
    # Kafka is asked about all topics at the same time.
    preflights = {stream: Preflight(runtime, stream) for folder, stream in claims.items() if folder in names}
    with closing(StateProbe(runtime)) as state:
        try:
            earlier = state.ask(lambda connection: sizes.earlier(connection, now))
            wanted = state.wanted(preflights)
            tombstones = state.ask(retired.all_of)
            locations = state.metadata_locations(runtime.platform.tables)
        except StateUnavailable as error:
            why = str(error).splitlines()[0]
            return {folder: Surroundings(claims.get(folder), unread=(why,), limit_mb=limit) for folder in names}
        found = {}
        for folder in names:
            around: dict[str, Any] = {"stream": claims.get(folder), "earlier": earlier.get(folder), "limit_mb": limit}
            around["retired"] = str(tombstones[folder]) if folder in tombstones else None
            if stream := claims.get(folder):
                around |= _of_stream(runtime, state, stream, preflights[stream], wanted[stream].value, wanted[stream].error)
            else:
                around["begins_on_main"] = _begins_on_main(runtime.checkpoints / folder, locations.values())
            found[folder] = Surroundings(**around)
    return found


def _of_stream(runtime: Runtime, state: StateProbe, stream: str, preflight: Preflight, wanted: Wanted | None, error: str | None) -> dict[str, Any]:
    spec = runtime.platform.streams[stream]
    keeps = None if spec.reads else timedelta(days=runtime.platform.exchanges[spec.exchange].retention_days)
    if wanted is None:
        return {"keeps": keeps, "unread": (str(error),)}
    try:
        tail = read_tail(runtime.checkpoint(stream))
    except CheckpointUnreadable:
        return {"keeps": keeps}  # which the doctor says in more words
    # An identity that a person has adopted is not known before its first commit.
    known = tail.query_id is not None and (tail.query_id == wanted.known_query_id or wanted.known_query_id is None)
    found = {"keeps": keeps, "known": known, "rewound": _rewound(wanted, tail)}
    try:
        return found | {"loss": state.ask(lambda connection: preflight.loss(connection, tail)), "behind": preflight.behind(tail)}
    except (NotKnown, StateUnavailable) as why:
        return found | {"unread": (f"whether its source still holds the place where it goes on: {str(why).splitlines()[0]}",)}


def _rewound(wanted: Wanted, tail: Checkpoint) -> str | None:
    """None as well of a stream that goes on from what a person has adopted, and has not committed since."""
    return None if wanted.adopted_generation == wanted.generation else rewound(wanted, tail)


def _begins_on_main(path: Path, locations: Any) -> bool | None:
    """Whether the table that a reader of Iceberg has got on with still has the snapshot that it began with; None of any other query."""
    try:
        reached = read_tail(path).committed
        begun = contents.start((path / "sources" / "0" / "offsets" / "0").read_text(), "its start")
        if not reached or contents.kind(reached) is not SourceKind.ICEBERG or begun["snapshot_id"] == NO_SNAPSHOT:
            return None
        for location in locations:
            snapshots = {commit.snapshot for commit in read_chain(location).commits}
            if reached["snapshot_id"] in snapshots:
                return begun["snapshot_id"] in snapshots
    except (OSError, ValueError, KeyError, TypeError, CheckpointUnreadable):
        pass  # a guess that helps where it can be made
    return None
