"""Bringing a checkpoint back, killed (SIGKILL) before any change on disk and asked for again as a person does. What the database says is another test's."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest

from k2.checkpoints.entries import entries, recover
from k2.checkpoints.manifest import LIST, Kind, Why
from k2.checkpoints.quarantine import put, quarantine_of
from k2.launchers import retiring
from k2.launchers.retiring import Subject
from k2.state.database import Connection

from ..checkpoints.crashes import every_crash
from ..checkpoints.folders import content, make

SUBJECT = Subject("x", None)
WHY = Why(kind=Kind.ADOPTED, who="dba", why="test", at=datetime(2026, 11, 22, 2, 30, tzinfo=UTC))


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(retiring, "_alone", lambda runtime, subject: contextlib.nullcontext(create_autospec(Connection, instance=True)))
    monkeypatch.setattr(retiring, "QUIET", timedelta(0))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder) / "data" / "checkpoints"


@pytest.mark.parametrize("named", [True, False])
def test_an_exchange_that_is_killed_is_asked_for_again(root: Path, named: bool) -> None:
    """By the name of what is to go back it always ends well; without one as long as that is not in its place."""
    runtime, live, place = SimpleNamespace(checkpoints=root), root / "x", quarantine_of(root)
    before: dict[str, object] = {}

    def begin() -> None:
        shutil.rmtree(root.parent, ignore_errors=True)
        make(live, offsets=(3, 4, 5), commits=(3, 4))
        before["old"] = content(live)
        before["name"] = put(live, root, WHY).folder.name
        make(live)
        before["new"] = content(live)

    def restore(name: str | None) -> None:
        retiring.restore(runtime, SUBJECT, retiring.choose(runtime, SUBJECT, name), who="ann", reason="it is read again")

    for _ in every_crash(begin, lambda: restore(str(before["name"]))):
        if not live.exists() or content(live) == before["new"]:
            restore(str(before["name"]) if named else None)
        elif named and (place / str(before["name"]) / LIST).exists():  # or else nothing is left to say that it is back
            restore(str(before["name"]))
        recover(place)
        (held,) = entries(place)
        assert content(live) == before["old"] and content(held.checkpoint) == before["new"]
