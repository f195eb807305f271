"""The steps of checkpoints_backup: choose the streams, back up the checkpoint of each, tell what there is now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from k2.airflow.pruning import locked
from k2.airflow.reports import Written
from k2.checkpoints import backup
from k2.checkpoints.entries import Refused, entries
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.registry.runtime import Runtime
from k2.state import retired
from k2.state.locks import Locked
from k2.state.streams import wanted
from k2.supervision.wishes import select


class BackupFailed(RuntimeError):
    """A checkpoint has no backup of now: the message says why."""


def chosen(runtime: Runtime, choice: str) -> list[str]:
    """The streams of a choice of the form. Raises ValueError."""
    return select(choice, runtime.platform)


def back_up(runtime: Runtime, stream: str, *, who: str, why: str) -> dict[str, Any]:
    """Back up the checkpoint of one stream, which may run: {"stream", "entry", "committed", "files", "bytes", "kept"}, or "why" where there is nothing to do.

    Raises BackupFailed.
    """
    path, now = runtime.checkpoint(stream), datetime.now(UTC)
    nothing = {"stream": stream, "entry": None, "committed": None, "files": 0, "bytes": 0, "kept": 0}
    if (path / "state").is_dir():
        return nothing | {"why": "it has state, which only a copy of a stopped stream would hold whole"}
    try:
        with locked(runtime, path.name) as connection:
            if tombstone := retired.of(connection, path.name):
                return nothing | {"why": str(tombstone)}
            if wanted(connection, stream).known_batch is None and read_tail(path).last_commit_batch is None:
                return nothing | {"why": "it has not committed yet" if path.exists() else "it was never started"}
            keep = runtime.platform.checkpoints.backups
            made = backup.back_up(path, runtime.checkpoints, who=who, why=why, at=now, keep=keep, about={"stream": stream})
    except (Refused, Locked, CheckpointUnreadable) as error:
        raise BackupFailed(f"{stream}: {error}") from error
    assert made.manifest is not None
    kept = len(entries(backup.backups_of(runtime.checkpoints, path.name)))
    found = {"entry": made.folder.name, "committed": made.manifest.last_committed, "files": made.manifest.files, "bytes": made.manifest.bytes, "kept": kept}
    return {"stream": stream, **found}


def report(runtime: Runtime, streams: Sequence[str], done: Sequence[dict[str, Any]]) -> Written:
    """What each stream has now; one that is not in `done` has failed."""
    by_stream = {d["stream"]: d for d in done}
    lines = ["| stream | backup | up to batch | files | kept |", "| --- | --- | --- | --- | --- |"]
    for stream in streams:
        made = by_stream.get(stream)
        if made is None:
            lines.append(f"| {stream} | failed: see the log of its task | – | – | – |")
        elif made["entry"] is None:
            lines.append(f"| {stream} | none: {made['why']} | – | – | – |")
        else:
            lines.append(f"| {stream} | {made['entry']} | {made['committed']} | {made['files']} | {made['kept']} |")
    made_of = {d["stream"]: d["entry"] for d in done if d["entry"]}
    summary = {"backed_up": made_of, "failed": [s for s in streams if s not in by_stream], "bytes": sum(d["bytes"] for d in done)}
    place = runtime.checkpoints.with_name(runtime.checkpoints.name + backup.BACKUPS)
    text = "\n".join([*lines, "", f"They lie below {place}. streams_control with restore puts one back, by its name."])
    return Written({**summary, "done": list(done)}, summary, text)
