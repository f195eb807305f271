"""The certificates of starts: read what they are judged from, judge, keep, and page when one is red."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from k2.checkpoints.reader import CheckpointUnreadable, read_offsets, read_tail
from k2.probes.history import read_chain
from k2.probes.state import StateProbe
from k2.registry.certificate import Certificate, Color
from k2.registry.history import Chain, History, Plans
from k2.registry.observed import Checkpoint
from k2.registry.runtime import Runtime
from k2.state import certificates, incidents
from k2.state.database import Connection
from k2.supervision.certificate import certify

log = logging.getLogger(__name__)

AROUND = 100
"""At most so many commits are looked at after a start, unless a red certificate stands; `./k2 certify` looks at all."""
BUDGET_SECONDS = 2.0
"""After that no other certificate is begun in the same run."""
PLANS_KEPT = 102

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """One certificate that was due. `error` says why there is none; the next run tries again."""

    stream: str
    certificate: Certificate | None = None
    error: str = ""


def certify_due(runtime: Runtime) -> list[Written]:
    """Write the certificates that are due. Raises nothing: an error in one stream hides no other, and nobody waits for it."""
    state = StateProbe(runtime)
    done: list[Written] = []
    deadline = time.monotonic() + BUDGET_SECONDS
    try:
        for due in state.ask(certificates.due):
            if due.stream not in runtime.platform.streams:
                continue  # it is no longer declared
            if time.monotonic() > deadline:
                log.warning("the certificate of %s waits for the next run", due.stream)
                break
            done.append(_write(runtime, state, due))
    except Exception:
        log.exception("certificates could not be written")
    finally:
        state.close()
    return done


def _write(runtime: Runtime, state: StateProbe, due: certificates.Due) -> Written:
    try:
        limit = None if due.whole else AROUND
        found = certify(read_history(runtime, state, due.stream, files_of=limit), since=due.since, limit=limit)
        if found.fence == due.fence:  # else a newer start will have its own
            state.ask(lambda connection: _keep(connection, found))
    except Exception as error:
        log.exception("no certificate of %s", due.stream)
        return Written(due.stream, error=f"{type(error).__name__}: {error}")
    level = logging.INFO if found.color is Color.GREEN else logging.WARNING
    log.log(level, "certificate of %s, fence %s, is %s: %s", due.stream, due.fence, found.color, found.sentence())
    return Written(due.stream, found)


def _keep(connection: Connection, found: Certificate) -> None:
    with connection.transaction():
        certificates.write(connection, found)
        key = f"certificate:{found.stream}"
        if found.color is Color.RED:
            detail = f"{found.sentence()}. ./k2 certify {found.stream} shows every check."
            incidents.open_incident(connection, key, "page", f"Stream {found.stream} lost or doubled records", detail)
        elif found.color is Color.GREEN:
            incidents.resolve_incident(connection, key, f"fence {found.fence}: {found.sentence()}")


def read_history(runtime: Runtime, state: StateProbe, stream: str, *, files_of: int | None) -> History:
    """What a stream's certificate is judged from. The offsets of files are read of the newest `files_of` commits, all for None.

    A part that cannot be read is named in `unread`. Raises database.StateUnavailable, and LookupError for an unregistered stream.
    """
    unread: dict[str, str] = {}
    spec = runtime.platform.streams[stream]
    path = runtime.checkpoint(stream)
    # The commit log before the tables, the plans after them, the ledger last: each is then as new as what it is compared with.
    before = _part(unread, "checkpoint", lambda: read_tail(path))
    roles = {"table": spec.writes[0]} | ({"dlq": spec.writes[1], "bronze": spec.reads} if spec.reads else {})
    locations = state.metadata_locations(set(roles.values()))
    chains: dict[str, Chain | None] = {
        role: _part(unread, role, lambda role=role, name=name: _chain(locations, name, files_of if role == "table" else 0)) for role, name in roles.items()
    }
    after = _part(unread, "checkpoint", lambda: read_tail(path)) if before is not None else None
    fence, known, launches = state.ask(lambda connection: certificates.ledger(connection, stream))
    plans = _plans(runtime, stream, before, after) if before is not None and after is not None else None
    if plans is not None and plans.query is None and plans.planned is None and known is None:
        plans, unread["checkpoint"] = None, "it was never started"
    return History(
        stream=stream,
        layer=spec.type,
        fence=fence,
        known_query=known,
        table=chains["table"],
        plans=plans,
        launches=launches,
        dlq=chains.get("dlq"),
        bronze=chains.get("bronze"),
        unread=unread,
    )


def _part(unread: dict[str, str], name: str, read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (OSError, ValueError, LookupError, CheckpointUnreadable) as error:
        unread[name] = f"{type(error).__name__}: {error}"
        return None


def _chain(locations: Mapping[str, str], table: str, files_of: int | None) -> Chain:
    if table not in locations:
        raise LookupError(f"table {table} is not in the catalog yet")
    return read_chain(locations[table], files_of=files_of)


def _plans(runtime: Runtime, stream: str, before: Checkpoint, after: Checkpoint) -> Plans:
    spec, path = runtime.platform.streams[stream], runtime.checkpoint(stream)
    last = after.last_offset_batch
    sources: dict[int, dict[str, Any]] = {}
    for batch in range(max(0, last - PLANS_KEPT), last + 1) if last is not None else ():
        try:
            source = read_offsets(path, batch)[0]
        except CheckpointUnreadable:
            continue  # Spark drops old ones
        if source is not None:
            sources[batch] = source
    if spec.reads:
        return Plans(after.query_id, before.last_commit_batch, last, positions={b: (s["snapshot_id"], s["position"]) for b, s in sources.items()})
    topic = runtime.platform.exchanges[spec.exchange].topic
    return Plans(after.query_id, before.last_commit_batch, last, ends={b: s[topic] for b, s in sources.items() if topic in s})
