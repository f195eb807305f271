"""Whether a checkpoint that goes back is the right one."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from k2.checkpoints.entries import Refused
from k2.launchers import retiring
from k2.launchers.retention import NotKnown
from k2.launchers.retiring import Subject, is_another, newest_of_backup
from k2.registry.history import Commit
from k2.registry.observed import Wanted
from k2.registry.platform import load_platform

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = Subject("bronze-binance", "bronze_binance")
RUNTIME: Any = SimpleNamespace(platform=load_platform())
BACKUP: Any = SimpleNamespace(id="bronze-binance-1", query_id="q")


@pytest.mark.parametrize(
    ("wanted", "query", "committed", "another"),
    [
        (Wanted("stopped", 1, 1, known_query_id="q", known_batch=5, launch_generation=1), "q", 5, False),
        (Wanted("stopped", 1, 1, known_query_id="q", known_batch=5, launch_generation=1), "q", 4, True),
        (Wanted("stopped", 1, 1, known_query_id="q", known_batch=5, launch_generation=1), "p", 5, True),
        (Wanted("stopped", 1, 1, known_query_id="q", known_batch=5, launch_generation=1), "q", None, True),
        (Wanted("stopped", 1, 1, launch_generation=1), "q", 5, True),
        (Wanted("stopped", 1, 0), "q", 5, False),
    ],
)
def test_another_than_the_last(wanted: Wanted, query: str, committed: int | None, another: bool) -> None:
    """Nothing known of one that was launched, as after a rebuild without a commit, is no proof that it is the right one."""
    assert is_another(query, committed, wanted) == another


def commits(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int]) -> None:
    monkeypatch.setattr(retiring, "batches", lambda *_: [Commit(n, NOW, "append", query=query, batch=batch) for n, (query, batch) in enumerate(found)])


def test_a_backup_is_compared_with_what_its_table_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest batch of its query; a query that went on after it would have its rows in the table twice."""
    commits(monkeypatch, ("p", 9), ("q", 1), ("q", 2))
    assert newest_of_backup(RUNTIME, None, SUBJECT, BACKUP) == 2  # type: ignore[arg-type]
    commits(monkeypatch)
    assert newest_of_backup(RUNTIME, None, SUBJECT, BACKUP) is None  # type: ignore[arg-type]
    commits(monkeypatch, ("q", 2), ("r", 0))
    with pytest.raises(Refused, match="bronze_binance_trades was last written by query r, and bronze-binance-1 is of query q: .* use action 'rebuild'"):
        newest_of_backup(RUNTIME, None, SUBJECT, BACKUP)  # type: ignore[arg-type]


def test_a_table_that_cannot_be_read_puts_no_backup_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it may go back is not known then."""

    def broken(*_: Any) -> Any:
        raise NotKnown("the metadata of t cannot be read")

    monkeypatch.setattr(retiring, "batches", broken)
    with pytest.raises(Refused, match="cannot be read: ask again"):
        newest_of_backup(RUNTIME, None, SUBJECT, BACKUP)  # type: ignore[arg-type]
