"""When a driver that drains stops its query, with the query told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import driver as module

TRIGGER_SECONDS = 10


class Query:
    """Each moment is one look at it: batch in flight, trigger active, Unix seconds. Past the last one it stays as it was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *moments: tuple[str | None, bool, float]) -> None:
        self.moments = list(moments)
        self.looked = 0.0
        self.stopped_at: tuple[str | None, bool, float] | None = None
        self.isActive = True
        clock = SimpleNamespace(time=lambda: self.now[2], monotonic=lambda: self.looked, sleep=self.pass_by)
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "_in_flight", lambda _: self.now[0])

    @property
    def now(self) -> tuple[str | None, bool, float]:
        return self.moments[0]

    @property
    def status(self) -> dict[str, Any]:
        return {"isTriggerActive": self.now[1]}

    def pass_by(self, _: float) -> None:
        self.looked += 1
        del self.moments[: len(self.moments) > 1]

    def stop(self) -> None:
        self.stopped_at = self.now
        self.isActive = False


def drained(query: Query) -> Query:
    restart = SimpleNamespace(drain_timeout_seconds=60)
    board = SimpleNamespace(update=lambda **_: None)
    spec = SimpleNamespace(trigger_seconds=TRIGGER_SECONDS)
    module._drain(SimpleNamespace(board=board, platform=SimpleNamespace(restart=restart), spec=spec, checkpoint=Path("c"), failure=None), query)  # type: ignore[arg-type]
    return query


def test_a_batch_that_is_being_planned_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is planned yet, but the trigger is near or active: the batch that comes of it commits first."""
    waits, commits = (None, False, 1004.0), (None, False, 1011.0)
    assert drained(Query(monkeypatch, waits)).stopped_at == waits
    moments = [(None, False, 1009.8), (None, True, 1010.0), ("batch 7", True, 1010.2), (None, True, 1010.9), commits]
    assert drained(Query(monkeypatch, *moments)).stopped_at == commits


def test_a_query_that_never_pauses_is_stopped_between_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is behind, so each trigger follows on the one before: after one interval the first gap is taken."""
    behind = [("batch 7", True, 1000.0), (None, True, 1000.0)] * 20
    query = drained(Query(monkeypatch, *behind))
    assert query.stopped_at == (None, True, 1000.0) and TRIGGER_SECONDS < query.looked <= TRIGGER_SECONDS + 3


def test_a_batch_that_does_not_end_is_cut_off_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next driver replays it."""
    query = drained(Query(monkeypatch, ("batch 7", True, 1000.0)))
    assert query.stopped_at == ("batch 7", True, 1000.0) and query.looked == 54
