"""The steps of checkpoints_backup on streams that run."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from k2.airflow import backing
from k2.checkpoints.backup import backups_of
from k2.checkpoints.entries import entries
from k2.checkpoints.reader import read_tail
from k2.state import database, retired
from k2.state.streams import know

STREAM, FOLDER = "bronze_binance", "bronze-binance"

Watched = Any


def test_every_stream_has_a_backup_and_the_newest_few_are_kept(watched: Watched) -> None:
    """While it runs; the report names them, and what lies there is where the query stood."""
    watched.up()
    checkpoint = watched.runtime.checkpoint(STREAM)
    streams = backing.chosen(watched.runtime, "all")
    assert streams == watched.names and backing.chosen(watched.runtime, STREAM) == [STREAM]
    keep = watched.runtime.platform.checkpoints.backups
    for batch in range(1, keep + 2):
        watched.commit(STREAM, batch)
        done = [backing.back_up(watched.runtime, stream, who="ann", why="by hand") for stream in streams]
    place = backups_of(watched.runtime.checkpoints, FOLDER)
    assert [len(entries(backups_of(watched.runtime.checkpoints, watched.runtime.checkpoint(s).name))) for s in streams] == [keep] * len(streams)
    newest = next(entry for entry in entries(place) if entry.folder.name == done[0]["entry"])
    assert read_tail(newest.checkpoint).committed == read_tail(checkpoint).committed
    assert newest.manifest is not None and (newest.manifest.who, newest.manifest.why, newest.manifest.about) == ("ann", "by hand", {"stream": STREAM})
    written = backing.report(watched.runtime, streams, done)
    assert f"| {STREAM} | {newest.folder.name} | {keep + 1} | {newest.manifest.files} | {keep} |" in written.markdown
    assert written.summary == {"backed_up": {d["stream"]: d["entry"] for d in done}, "failed": [], "bytes": sum(d["bytes"] for d in done)}


def test_what_has_none_says_why(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never started, nothing committed yet, or with state: nothing to do. Its commits gone, or held by another action: failed, and told so by the report."""
    assert backing.back_up(watched.runtime, STREAM, who="ann", why="by hand")["why"] == "it was never started"
    watched.commit(STREAM, 0)
    checkpoint = watched.runtime.checkpoint(STREAM)
    (checkpoint / "state").mkdir()
    stateful = backing.back_up(watched.runtime, STREAM, who="ann", why="by hand")
    assert "it has state" in stateful["why"]
    (checkpoint / "state").rmdir()
    (checkpoint / "commits" / "0").unlink()
    assert backing.back_up(watched.runtime, STREAM, who="ann", why="by hand")["why"] == "it has not committed yet"
    with database.connect(watched.runtime, "control") as connection:
        know(connection, {STREAM: ("q", 0, 0)})
    with pytest.raises(backing.BackupFailed, match=f"{STREAM}: .* has no batch committed"):
        backing.back_up(watched.runtime, STREAM, who="ann", why="by hand")
    shutil.rmtree(checkpoint)
    with pytest.raises(backing.BackupFailed, match="No such file or directory"):
        backing.back_up(watched.runtime, STREAM, who="ann", why="by hand")
    with database.connect(watched.runtime, "control") as connection:
        retired.begin(connection, checkpoint.name, who="ann", reason="moved away")
    assert "is retired" in backing.back_up(watched.runtime, STREAM, who="ann", why="by hand")["why"]
    with database.connect(watched.runtime, "control") as connection:
        retired.forget(connection, checkpoint.name)
    watched.commit(STREAM, 0)
    monkeypatch.setattr("k2.state.locks.WAIT_MS", 200)
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('k2 checkpoint ' || %s, 0))", (FOLDER,))
        with pytest.raises(backing.BackupFailed, match="another action on it is under way"):
            backing.back_up(watched.runtime, STREAM, who="ann", why="by hand")
    written = backing.report(watched.runtime, [STREAM, "silver_binance"], [stateful])
    assert (
        "| bronze_binance | none: it has state, which only" in written.markdown and "| silver_binance | failed: see the log of its task |" in written.markdown
    )
    assert written.summary["failed"] == ["silver_binance"] and written.summary["backed_up"] == {}
    with pytest.raises(ValueError, match="names no stream"):
        backing.chosen(watched.runtime, "gold")
