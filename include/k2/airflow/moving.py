"""What a person asks of a whole checkpoint: that it is retired, or that one goes back. Planned for whoever approves it, and done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from k2.checkpoints import quarantine, survey
from k2.checkpoints.backup import backups_of
from k2.checkpoints.entries import Entry, Refused, entries
from k2.checkpoints.manifest import Kind
from k2.checkpoints.reader import read_tail
from k2.launchers import retiring
from k2.launchers.retiring import Subject
from k2.registry.runtime import Runtime
from k2.registry.wishes import Wish
from k2.state import streams
from k2.state.database import Connection


@dataclass(frozen=True)
class Planned:
    """`entry`: what goes back. None for a retiring, and for one that is only undone."""

    wish: Wish
    subject: Subject
    sentence: str
    entry: Entry | None = None

    @property
    def target(self) -> str:
        """What the audit log knows it by."""
        return self.subject.stream or self.subject.folder


def plan(runtime: Runtime, connection: Connection, wish: Wish, stream: str, named: str) -> Planned:
    """What retiring or restoring would do as things are. `named` is what the field `checkpoint` says. Raises Refused."""
    subject, name = _subject(runtime, stream, named)
    if why := retiring.in_use(runtime, connection, subject):
        raise Refused(why)
    if wish is Wish.RETIRE:
        if name is not None:
            raise Refused(f"checkpoint: {named!r} lies in the quarantine or is a backup: choose the folder of a checkpoint")
        if why := retiring.unfit(runtime, connection, subject):
            raise Refused(why)
        return Planned(wish, subject, _retired(runtime, subject))
    if name is None and retiring.is_back(runtime, connection, subject):
        return Planned(wish, subject, f"{subject.folder} is in its place already: only its tombstone is removed, and its stream can be started again")
    entry = retiring.choose(runtime, subject, name)
    if entry.manifest is not None and entry.manifest.kind is Kind.BACKUP:
        retiring.newest_of_backup(runtime, connection, subject, entry.manifest)
    return Planned(wish, subject, _back(connection, subject, entry), entry)


def carry_out(runtime: Runtime, planned: Planned, *, who: str, reason: str) -> str:
    """Do it. Returns a sentence of what was done. Raises Refused."""
    if planned.wish is Wish.RETIRE:
        return f"it lies in the quarantine as {retiring.retire(runtime, planned.subject, who=who, reason=reason).folder.name}"
    if planned.entry is None:
        retiring.undo(runtime, planned.subject)
        return "its tombstone is removed"
    files = retiring.restore(runtime, planned.subject, planned.entry, who=who, reason=reason)
    return f"{planned.entry.folder.name} is back: {files:,} files, equal in every byte"


def _subject(runtime: Runtime, stream: str, named: str) -> tuple[Subject, str | None]:
    """The checkpoint that a request is about, and the entry or backup that it names. Raises Refused."""
    claims = survey.claimed(runtime)
    if not named:
        if stream not in runtime.platform.streams:
            raise Refused(f"stream: {stream!r} names several: choose one, or name a folder that no stream claims as checkpoint")
        return Subject(runtime.platform.streams[stream].checkpoint, stream), None
    if "/" in named or named.startswith("."):
        raise Refused(f"checkpoint: {named!r} is no name: choose a folder that './k2 checkpoints doctor' lists, or an entry of the quarantine")
    places = [quarantine.quarantine_of(runtime.checkpoints), *sorted(filter(Path.is_dir, backups_of(runtime.checkpoints, "x").parent.glob("*")))]
    lying = {e.folder.name: e.manifest.folder for place in places for e in entries(place) if e.manifest is not None}
    if named in lying:
        folder, name = lying[named], named
    elif named in claims or (runtime.checkpoints / named).is_dir() or named in lying.values():
        folder, name = named, None
    else:
        raise Refused(f"checkpoint: {named!r} is not there: choose a folder that './k2 checkpoints doctor' lists, or an entry of the quarantine or a backup")
    claimed = claims.get(folder)
    if claimed is not None and claimed != stream:
        raise Refused(f"checkpoint: {named!r} is of {claimed}, and the stream is {stream!r}: choose that stream")
    return Subject(folder, claimed), name


def _retired(runtime: Runtime, subject: Subject) -> str:
    if not (runtime.checkpoints / subject.folder).exists():
        return f"{subject} is in the quarantine already, and the retiring was interrupted: its tombstone gets to say where it lies"
    tail = read_tail(runtime.checkpoints / subject.folder)
    days = runtime.platform.checkpoints.quarantine_days
    at = f", at {tail.last_commit_at:%Y-%m-%d %H:%M:%S} UTC" if tail.last_commit_at else ""
    what = f"{subject}, of query {tail.query_id}, committed up to batch {tail.last_commit_batch}{at}, goes whole into the quarantine"
    what += f" and can go back for {days} days"
    if subject.stream:
        return f"{what}. Until it is back {subject.stream} cannot be started"
    return f"{what}. No table has a later batch of it; that nothing uses it on another machine only you can know"


def _back(connection: Connection, subject: Subject, entry: Entry) -> str:
    manifest = entry.manifest
    assert manifest is not None
    put = f"{entry.folder.name}, put there at {manifest.at:%Y-%m-%d %H:%M:%S} UTC by {manifest.who} ({manifest.kind}: {manifest.why})"
    if manifest.kind is Kind.LEFTOVERS:
        return f"{put}: its {manifest.files:,} files go back into {subject}"
    what = f"{put}, of query {manifest.query_id}, committed up to batch {manifest.last_committed}, goes back into the place of {subject}"
    what += "; what lies there goes into the quarantine"
    if not subject.stream:
        return what
    wanted = streams.wanted(connection, subject.stream)
    if not retiring.is_another(manifest.query_id, manifest.last_committed, wanted):
        return f"{what}. It is the one that {subject.stream} was last seen with, which goes on from it when it is started"
    seen = f"which was of query {wanted.known_query_id} up to batch {wanted.known_batch}" if wanted.known_query_id else "of which nothing is known"
    return (
        f"{what}. **It is not the one that {subject.stream} was last seen with**, {seen}: the next start goes on from it as after adopt. "
        "What it commits again is in its tables twice, and what it has already passed is never read. "
        "If its table has batches of its query that it has not planned, it gets a new identity first"
    )
