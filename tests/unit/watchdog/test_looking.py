"""Readings judged, and the sources that were silent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from k2.registry.observed import Observation, QueryStatus, Reading, Verdict
from k2.registry.platform import load_platform
from k2.watchdog.judged import examine
from k2.watchdog.recording import silences

from .readings import CHECKPOINT, DEAD, DRIVER, HEAD, LAUNCHED, WANTED, A, B


def now(value: Any) -> Reading[Any]:
    return Reading(datetime.now(UTC), value)


def silent(why: str) -> Reading[Any]:
    return Reading(datetime.now(UTC), error=why)


def test_examine_tells_a_broken_checkpoint(tmp_path: Path) -> None:
    """A checkpoint that breaks between two readings is a reading with an error."""
    here = SimpleNamespace(platform=load_platform(), checkpoint=lambda stream: tmp_path / stream)
    young = replace(DRIVER, started_at=datetime.now(UTC) - timedelta(seconds=5))
    (tmp_path / A).mkdir()
    (tmp_path / A / "commits").write_text("a file where a folder belongs")
    seen = Observation(A, datetime.now(UTC), now(replace(WANTED, first_commit_at=None)), now(young), silent("no"), now(CHECKPOINT), now(HEAD))
    found = examine(here, seen, datetime.now(UTC))
    assert found.observation.checkpoint.error is not None and "Not a directory" in found.observation.checkpoint.error
    assert found.decision.verdict is Verdict.STARTING and not found.first_commit_found


def test_silences_are_told_once() -> None:
    """One sentence per source and reason; a driver without a status is no silence."""
    status = Reading[QueryStatus](LAUNCHED, error="no driver runs")
    seen = [Observation(name, LAUNCHED, now(WANTED), silent("agent away"), status, now(CHECKPOINT), silent("kafka away")) for name in (A, B)]
    assert silences(seen) == "driver: agent away; head: kafka away"
    down = Observation(A, LAUNCHED, now(WANTED), now(DEAD), status, silent("unreadable"), silent("no such table yet"))
    assert silences([down]) == "", "where nothing runs, nobody asked for its progress"
