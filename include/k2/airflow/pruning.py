"""The steps of checkpoints_prune: find the checkpoints, examine and plan each, take leftovers away, look at all of them again, tell."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from k2.airflow.reports import Written, apply
from k2.checkpoints import entries as checkpoint_entries
from k2.checkpoints import leftovers, quarantine, survey
from k2.checkpoints import report as checkpoint_report
from k2.checkpoints.doctor import Health, health
from k2.checkpoints.examine import Examination, NotACheckpoint, folders
from k2.checkpoints.manifest import Kind, Why
from k2.checkpoints.plan import Plan, PlanChanged, plan
from k2.health.report import Change
from k2.launchers import retiring
from k2.registry.runtime import Runtime
from k2.state import incidents, sizes
from k2.state.database import Connection, connect
from k2.state.locks import lock_checkpoint

log = logging.getLogger(__name__)

PLANS_KEPT = timedelta(days=30)
KEY = "checkpoint:"
"""What the keys of incidents about checkpoints begin with."""
NOTHING = "nothing is left over"


class PruneFailed(RuntimeError):
    """A checkpoint is not as well as it was before something was taken out of it, or a part of the run did not come through."""


def discover(runtime: Runtime) -> list[str]:
    """Every folder that may be a checkpoint: those that streams claim, then all others. Raises OSError when they cannot be listed."""
    return folders(runtime.checkpoints, survey.claimed(runtime))


def examine(runtime: Runtime, folder: str, run: str) -> dict[str, Any]:
    """Examine one folder and write its plan: {"folder", "health", "plan"}, no plan of what does not exist or is no checkpoint."""
    now = datetime.now(UTC)
    path = runtime.checkpoints / folder
    try:
        if not path.exists():
            return {"folder": folder, "health": str(Health.HEALTHY), "plan": None}
        file = runtime.home / "plans" / "checkpoints" / re.sub(r"[^\w.-]", "_", run) / f"{folder}.jsonl"
        found, made = plan(path, survey.read(runtime, [folder], now)[folder], now, file)
    except NotACheckpoint:
        return {"folder": folder, "health": str(Health.UNKNOWN), "plan": None}
    return {"folder": folder, "health": str(found.health), "plan": made.as_dict()}


def unusual(planned: Sequence[dict[str, Any]]) -> list[str]:
    """What somebody must agree to before it is done, a sentence per checkpoint."""
    return [f"{p['folder']}: {p['plan']['unusual']}" for p in planned if p["plan"] and p["plan"]["unusual"] and not p["plan"]["refused"]]


def would_take(planned: dict[str, Any]) -> dict[str, Any]:
    """What carrying out a plan would come to, in the same form."""
    plan = planned["plan"] or {"files": 0, "bytes": 0, "refused": None, "unusual": None}
    done = {"folder": planned["folder"], "files": 0 if plan["refused"] else plan["files"], "bytes": plan["bytes"], "entry": None, "stayed": {}}
    return done | {"why": plan["refused"] or plan["unusual"] or (NOTHING if not plan["files"] else "")}


def take_away(runtime: Runtime, planned: dict[str, Any], *, who: str, approved: bool) -> dict[str, Any]:
    """Carry out one plan: {"folder", "files", "bytes", "entry", "stayed"}, and "why" where nothing was done. Raises PruneFailed."""
    folder, now = planned["folder"], datetime.now(UTC)
    nothing = {"folder": folder, "files": 0, "bytes": 0, "entry": None, "stayed": {}}
    if planned["plan"] is None or not planned["plan"]["files"]:
        return nothing | {"why": NOTHING}
    made = Plan.of(planned["plan"])
    if made.unusual and not approved:
        return nothing | {"why": f"{made.unusual}: nobody has agreed to take so many"}
    limits = runtime.platform.checkpoints
    why = Why(kind=Kind.LEFTOVERS, who=who, why="left by crashed writes", at=now)
    try:
        taken = leftovers.take_away(made, runtime.checkpoints, why, most=limits.prune_files, seconds=limits.prune_seconds, hold=lambda: locked(runtime, folder))
    except (checkpoint_entries.Refused, PlanChanged) as error:
        return nothing | {"why": str(error)}
    (after,) = survey.examine_all(runtime, datetime.now(UTC), [folder])
    if taken.files and after.health is Health.DAMAGED:
        raise PruneFailed(
            f"{folder} was {planned['health']} and is {after.health}: put entry {taken.entry} back. {checkpoint_report.sentence(after.findings[0])}"
        )
    return {"folder": folder, **asdict(taken)}


@contextmanager
def locked(runtime: Runtime, folder: str) -> Iterator[Connection]:
    """A transaction that holds the lock of a checkpoint. Raises locks.Locked, database.StateUnavailable."""
    with connect(runtime, "control") as connection:
        lock_checkpoint(connection, folder)
        yield connection


def purge(runtime: Runtime, now: datetime, *, dry_run: bool) -> list[str]:
    """Delete from the quarantine what has lain there for its time, and what an interrupted purge has left. Returns what went, or would go."""
    place = quarantine.quarantine_of(runtime.checkpoints)
    ttl = timedelta(days=runtime.platform.checkpoints.quarantine_days)
    due = [e for e in checkpoint_entries.entries(place) if e.purging or (e.manifest is not None and e.manifest.at + ttl <= now)]
    if dry_run:
        return [entry.folder.name for entry in due]
    checkpoint_entries.recover(place)
    gone = []
    for entry in due:
        try:
            checkpoint_entries.purge(entry, now, ttl)
        except (checkpoint_entries.Refused, OSError) as error:
            log.warning("%s stays: %s", entry.folder.name, error)
        else:
            gone.append(entry.folder.name)
    _forget_plans(runtime.home / "plans" / "checkpoints", now)
    return gone


def _forget_plans(place: Path, now: datetime) -> None:
    for run in place.iterdir() if place.is_dir() else ():
        if now.timestamp() - run.stat().st_mtime > PLANS_KEPT.total_seconds():
            shutil.rmtree(run)


def report(runtime: Runtime, done: Sequence[dict[str, Any]], *, dry_run: bool) -> Written:
    """Examine all checkpoints as they are now, remember their sizes, and open and resolve the incidents that follow."""
    now = datetime.now(UTC)
    purged = purge(runtime, now, dry_run=dry_run)
    if not dry_run and (forgotten := retiring.forget_purged(runtime, [name.removesuffix(checkpoint_entries.PURGING) for name in purged])):
        log.info("no longer retired, because what was kept of them is purged: %s", ", ".join(forgotten))
    found = survey.examine_all(runtime, now)
    with connect(runtime, "control") as connection:
        sizes.remember(connection, now, {e.folder: (e.files, e.bytes) for e in found if e.exists})
        held = {e.stream for e in found if e.stream and incidents.is_open(connection, incidents.held_key(e.stream))}
        open_ones = [key for key in incidents.open_keys(connection) if key.startswith(KEY)]
    changed = apply(runtime, changes(found, held, open_ones))
    entries = checkpoint_entries.entries(quarantine.quarantine_of(runtime.checkpoints))
    summary = {
        "dry_run": dry_run,
        "checkpoints": sum(e.exists for e in found),
        "health": {e.folder: str(e.health) for e in found if e.exists or e.findings},
        "unclaimed": [e.folder for e in found if e.stream is None],
        "bytes": sum(e.bytes for e in found),
        "taken": sum(d["files"] for d in done),
        "purged": purged,
        "quarantine": len(entries),
    }
    text = "\n\n".join([checkpoint_report.markdown(found), checkpoint_report.pruned(done, purged, entries, dry_run=dry_run)])
    return Written({**summary, **changed, "done": list(done), "details": [e.as_dict() for e in found]}, summary | changed, text)


def incomplete(folders: Sequence[str] | None, done: Sequence[dict[str, Any]]) -> str | None:
    """What of a run did not come through, in a sentence; None when all of it did. `folders` is None when they could not be found."""
    if folders is None:
        return "discover failed, so nothing was examined or taken away: see its log"
    missing = sorted(set(folders) - {one["folder"] for one in done})
    return f"examine or take_away failed for {', '.join(missing)}: see their logs" if missing else None


def changes(found: Sequence[Examination], held: Collection[str | None], open_keys: Iterable[str]) -> list[Change]:
    """The incidents that follow from what the checkpoints are: one for each, of one severity at a time, so that one that gets worse is told anew.

    `held` are the streams that the watchdog tells of: what it looks at itself is not told twice.
    """
    wanted = {change.key: change for e in found if (change := _change(e, told=e.stream in held)) is not None}
    health = {_key(e, severity): str(e.health) for e in found for severity in SEVERITIES.values()}
    over = [Change(key, None, "", f"it is {health[key]}" if key in health else "it is there no more") for key in open_keys if key not in wanted]
    return [*wanted.values(), *over]


SEVERITIES = {Health.DAMAGED: "page", Health.BREAKING: "ticket", Health.UNKNOWN: "ticket"}


def _change(found: Examination, *, told: bool) -> Change | None:
    # What surrounds a checkpoint and does not answer has incidents of its own.
    mine = [f for f in found.findings if not (f.told and (told or f.health is Health.UNKNOWN))]
    is_ = health(mine)
    if is_ not in SEVERITIES:
        return None
    severity = SEVERITIES[is_] if found.stream else "ticket"
    whose = f" of {found.stream}" if found.stream else ""
    return Change(_key(found, severity), severity, f"Checkpoint {found.folder}{whose}: {is_}", "\n".join(checkpoint_report.sentence(f) for f in mine))


def _key(found: Examination, severity: str) -> str:
    """Names the stream, so that a maintenance window of that mutes it."""
    return f"{KEY}{found.folder}:{found.stream or ''}:{severity}"
