"""Taking a whole checkpoint out of use, and bringing one back: under its lock, with its stream stopped.

Retiring is three steps, each of which can be done again: the tombstone, the rename into the quarantine, the tombstone's word where it lies. A start honours the
tombstone from the first; whatever is interrupted is finished by retiring it again, or undone by restoring it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from k2.checkpoints import leftovers, quarantine
from k2.checkpoints.backup import backups_of, restore_backup
from k2.checkpoints.doctor import Health, Surroundings
from k2.checkpoints.entries import CHECKPOINT, Entry, Refused, entries, verify_list
from k2.checkpoints.examine import NotACheckpoint, examine
from k2.checkpoints.guard import rewound
from k2.checkpoints.manifest import Kind, Manifest, Why
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.launchers.client import AgentClient, AgentUnavailable
from k2.launchers.retention import NotKnown, batches, newest_batch
from k2.registry.observed import Checkpoint, DriverState, Wanted
from k2.registry.runtime import Runtime
from k2.state import database, retired, streams
from k2.state.locks import Locked, lock_checkpoint

QUIET = timedelta(hours=24)
"""Whether a query that nobody declares still runs cannot be asked anybody: it must not have written for so long."""
GOES_BACK = frozenset({Kind.RETIRED, Kind.REPLACED, Kind.ADOPTED})
"""Kinds of which the newest goes back when none is named."""


@dataclass(frozen=True)
class Subject:
    """One checkpoint: its folder below the root, and the declared stream that claims it."""

    folder: str
    stream: str | None

    def __str__(self) -> str:
        return f"{self.folder}, the checkpoint of {self.stream}" if self.stream else f"{self.folder}, which no stream claims"


@contextmanager
def _alone(runtime: Runtime, subject: Subject) -> Iterator[database.Connection]:
    """A transaction that holds the checkpoint while its stream is stopped and no driver of it runs. Raises Refused."""
    try:
        with database.connect(runtime, "control") as connection:
            lock_checkpoint(connection, subject.folder)
            if why := in_use(runtime, connection, subject):
                raise Refused(why)
            yield connection
    except Locked as error:
        raise Refused(f"{error}: ask again") from error


def in_use(runtime: Runtime, connection: database.Connection, subject: Subject) -> str | None:
    """Why nothing may be moved now; None when the stream is stopped and has no driver."""
    if subject.stream is None:
        return None
    wanted = streams.wanted(connection, subject.stream)
    if wanted.desired != "stopped":
        return f"{subject.stream} is wanted running: use action 'stop' first"
    if wanted.launch_generation is not None and wanted.ended_at is None:
        return f"nobody has seen yet how the driver of {subject.stream} with fence {wanted.fence} ended: wait for the verdict STOPPED, then ask again"
    try:
        with AgentClient(runtime) as agent:
            running = [d.fence for d in agent.drivers().get(subject.stream, []) if d.state is DriverState.RUNNING]
    except AgentUnavailable as error:
        return f"whether a driver of {subject.stream} runs cannot be known: {error}: ask again"
    return f"the driver of {subject.stream} with fence {running[0]} still runs: ask again when it has ended" if running else None


def retire(runtime: Runtime, subject: Subject, *, who: str, reason: str) -> Entry:
    """Put a checkpoint into the quarantine for good, unless it is restored. Raises Refused; then it is where it was, or a tombstone says more."""
    with _alone(runtime, subject) as connection:
        if why := unfit(runtime, connection, subject):
            raise Refused(why)
        retired.begin(connection, subject.folder, who=who, reason=reason)
        begun = retired.of(connection, subject.folder)
    with _alone(runtime, subject) as connection:
        if retired.of(connection, subject.folder) != begun:
            raise Refused(f"somebody else has retired or restored {subject.folder} meanwhile: ask again")
        path = runtime.checkpoints / subject.folder
        if os.path.lexists(path):
            why = Why(kind=Kind.RETIRED, who=who, why=reason, at=datetime.now(UTC), about=_about(runtime, subject))
            entry = quarantine.put(path, runtime.checkpoints, why)
        else:
            entry = choose(runtime, subject, None)
        retired.finish(connection, subject.folder, entry.folder.name)
    return entry


def unfit(runtime: Runtime, connection: database.Connection, subject: Subject) -> str | None:
    """Why a checkpoint must not be retired; None when it may: it is whole, and its tables have no later batch of its query."""
    path = runtime.checkpoints / subject.folder
    begun = retired.of(connection, subject.folder)
    if begun is not None and not os.path.lexists(path):
        return f"{subject.folder} is in the quarantine already, as {begun.entry}: use action 'restore' to bring it back" if begun.entry else None
    wanted = streams.wanted(connection, subject.stream) if subject.stream else None
    try:
        tail = read_tail(path)
        if wanted is not None and os.path.lexists(path) and (how := rewound(wanted, tail)):
            return f"{how}: put the right one back, or use action 'rebuild'"
        around = Surroundings(subject.stream, alone=subject.stream is None, known=bool(wanted and wanted.known_query_id == tail.query_id))
        found = examine(path, around, datetime.now(UTC))
    except (CheckpointUnreadable, NotACheckpoint) as error:
        return f"{error}: what is damaged is not retired: use action 'rebuild', or move it by hand"
    if not found.exists:
        return f"there is no checkpoint {subject.folder}: choose one that './k2 checkpoints doctor' lists"
    if found.health in (Health.DAMAGED, Health.UNKNOWN):
        return f"{subject.folder} is {found.health}: {found.findings[0].evidence}: mend that first, then ask again"
    try:
        return _later(runtime, connection, subject, tail) or (None if subject.stream else _needed(runtime, connection, subject, tail))
    except NotKnown as error:
        return f"whether its tables have later batches cannot be known: {error}: ask again"


def _later(runtime: Runtime, connection: database.Connection, subject: Subject, tail: Checkpoint) -> str | None:
    """A table with a batch of the query that the checkpoint has not planned: then it is an old copy."""
    planned = -1 if tail.last_offset_batch is None else tail.last_offset_batch
    tables = runtime.platform.streams[subject.stream].writes if subject.stream else runtime.platform.tables
    for table in tables if tail.query_id is not None else ():
        newest = newest_batch(runtime, connection, table, str(tail.query_id))
        if newest is not None and newest > planned:
            said = f"{table} has batch {newest} of query {tail.query_id}, and {subject.folder} ends with batch {planned}"
            return f"{said}: it is an older copy, and another one is in use: find that first, then ask again"
    return None


def _needed(runtime: Runtime, connection: database.Connection, subject: Subject, tail: Checkpoint) -> str | None:
    """Signs that somebody uses a checkpoint that no stream claims."""
    for stream, wanted in streams.wanted_of(connection, runtime.platform.streams).items():
        if wanted.known_query_id is not None and wanted.known_query_id == tail.query_id:
            return f"{subject.folder} is of query {tail.query_id}, and so is the checkpoint of {stream}: find out which of them is in use, then ask again"
    return _written_lately(runtime, subject)


def _written_lately(runtime: Runtime, subject: Subject) -> str | None:
    """That a query has planned or committed there within QUIET; None when none has, or nothing lies there. Raises Refused."""
    times = []
    for log in ("offsets", "commits"):
        try:
            with os.scandir(runtime.checkpoints / subject.folder / log) as files:
                times += [file.stat(follow_symlinks=False).st_mtime for file in files]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Refused(f"whether a query writes to {subject.folder} cannot be known: {log}: {error.strerror}: mend that, then ask again") from error
    latest = datetime.fromtimestamp(max(times), UTC) if times else None
    if latest is not None and datetime.now(UTC) - latest < QUIET:
        return f"{subject.folder} was written to at {latest:%Y-%m-%d %H:%M:%S} UTC, within {QUIET.total_seconds() / 3600:.0f} h: end its query, and ask again"
    return None


def _about(runtime: Runtime, subject: Subject) -> dict[str, JsonValue]:
    """What must be known of a retired checkpoint while it may go back: which places of which tables and topics it would need."""
    tail = read_tail(runtime.checkpoints / subject.folder)
    found: dict[str, JsonValue] = {"stream": subject.stream, "query": tail.query_id, "committed": tail.committed}
    if subject.stream:
        spec = runtime.platform.streams[subject.stream]
        found |= {"reads": spec.reads or runtime.platform.exchanges[spec.exchange].topic, "writes": list(spec.writes)}
    return found


def choose(runtime: Runtime, subject: Subject, name: str | None) -> Entry:
    """What goes back: the entry or backup with this name, or the newest whole checkpoint in the quarantine. Raises Refused."""
    place = quarantine.quarantine_of(runtime.checkpoints)
    if name is not None:
        found = [e for e in (*entries(place), *entries(backups_of(runtime.checkpoints, subject.folder))) if e.folder.name == name]
        if not found:
            raise Refused(f"there is no entry {name} in the quarantine, and no such backup: choose one that is there")
        if found[0].manifest is None or (found[0].wrong and not quarantine.is_back(found[0], runtime.checkpoints / subject.folder)):
            raise Refused(f"{name} cannot go back: {found[0].wrong}: choose another one")
        return found[0]
    whole = [(e.manifest.at, e.folder.name, e) for e in entries(place) if e.wrong is None and e.manifest and e.manifest.folder == subject.folder]
    whole = [(at, name, e) for at, name, e in whole if e.manifest and e.manifest.kind in GOES_BACK]
    if not os.path.lexists(runtime.checkpoints / subject.folder):
        # An exchange that was interrupted goes on with what was to go back, and not with what was put away for it.
        there = {name for _, name, _ in whole}
        whole = [(at, name, e) for at, name, e in whole if e.manifest and e.manifest.about.get(quarantine.FOR) not in there]
    if not whole:
        raise Refused(f"the quarantine has no checkpoint of {subject.folder}: choose a backup by its name, or use action 'rebuild'")
    return max(whole)[2]


def is_another(query: str | None, committed: int | None, wanted: Wanted) -> bool:
    """Whether a checkpoint that goes back is not the one that its stream was last seen with, or that cannot be known of one that was launched."""
    if wanted.known_query_id is None or wanted.known_batch is None:
        return wanted.launch_generation is not None
    return query != wanted.known_query_id or committed is None or committed < wanted.known_batch


def restore(runtime: Runtime, subject: Subject, entry: Entry, *, who: str, reason: str) -> int:
    """Put what an entry holds back into its place, equal in every byte; what lies there goes into the quarantine. Returns how many files went back.

    If it is not the checkpoint that its stream was last seen with, the stream is adopted with it, as the next request asks. Interrupted, it is asked for
    again by the same name and goes on, as long as the entry is there. Raises Refused.
    """
    place = runtime.checkpoints / subject.folder
    with _alone(runtime, subject) as connection:
        manifest = verify_list(entry)
        if manifest.folder != subject.folder:
            raise Refused(f"{entry.folder.name} is of {manifest.folder}, and not of {subject.folder}: choose one of it")
        if manifest.kind is Kind.LEFTOVERS:
            return leftovers.put_back(entry, runtime.checkpoints)
        if subject.stream is None and (busy := _written_lately(runtime, subject)):
            raise Refused(busy)
        why = Why(kind=Kind.REPLACED, who=who, why=f"{entry.folder.name} takes its place: {reason}", at=datetime.now(UTC))
        if manifest.kind is Kind.BACKUP:
            restore_backup(entry, place, runtime.checkpoints, newest_of_backup(runtime, connection, subject, manifest), why)
        else:
            quarantine.restore(entry, place, runtime.checkpoints, why)
        _back(connection, subject, manifest.query_id, manifest.last_committed)
        return manifest.files


def is_back(runtime: Runtime, connection: database.Connection, subject: Subject) -> bool:
    """Whether a checkpoint is in its place though its tombstone stands: it was not moved yet, or it was restored and that not written down."""
    begun = retired.of(connection, subject.folder)
    if begun is None or not os.path.lexists(runtime.checkpoints / subject.folder):
        return False
    return begun.entry is None or not (quarantine.quarantine_of(runtime.checkpoints) / begun.entry / CHECKPOINT).exists()


def undo(runtime: Runtime, subject: Subject) -> None:
    """Remove the tombstone of a checkpoint that is in its place. Raises Refused."""
    with _alone(runtime, subject) as connection:
        if not is_back(runtime, connection, subject):
            raise Refused(f"{subject.folder} is not in its place, or was not retired: ask again")
        try:
            tail = read_tail(runtime.checkpoints / subject.folder)
        except CheckpointUnreadable as error:
            raise Refused(f"{error}: use action 'rebuild'") from error
        _back(connection, subject, tail.query_id, tail.last_commit_batch)


def forget_purged(runtime: Runtime, purged: Collection[str]) -> list[str]:
    """Remove the tombstones of the checkpoints that lay in these entries: nothing can bring them back. Returns their folders.

    Raises database.StateUnavailable.
    """
    with database.connect(runtime, "control") as connection:
        gone = [stone.folder for stone in retired.all_of(connection).values() if stone.entry in purged]
        for folder in gone:
            retired.forget(connection, folder)
    return gone


def _back(connection: database.Connection, subject: Subject, query: str | None, committed: int | None) -> None:
    retired.forget(connection, subject.folder)
    if subject.stream and is_another(query, committed, streams.wanted(connection, subject.stream)):
        streams.forget_checkpoint(connection, subject.stream)


def newest_of_backup(runtime: Runtime, connection: database.Connection, subject: Subject, manifest: Manifest) -> int | None:
    """The newest batch of a backup's query in its stream's table; None when that cannot be known. Raises Refused when another query has gone on."""
    if subject.stream is None or manifest.query_id is None:
        return None
    table = runtime.platform.streams[subject.stream].writes[0]
    try:
        newest = next(iter(reversed(batches(runtime, connection, table))), None)
    except NotKnown as error:
        raise Refused(f"{error}: ask again") from error
    if newest is not None and newest.query != manifest.query_id:
        raise Refused(
            f"{table} was last written by query {newest.query}, and {manifest.id} is of query {manifest.query_id}: "
            "going on from it, what the other one wrote would be there twice; use action 'rebuild'"
        )
    return newest.batch if newest else None
