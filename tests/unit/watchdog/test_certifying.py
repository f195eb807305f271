"""Certificates that are due: one that fails hides no other, and only the launch that it is for gets it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from k2.registry.history import Chain, History
from k2.state.certificates import Due
from k2.state.database import StateUnavailable
from k2.watchdog import certifying

RUNTIME: Any = SimpleNamespace(platform=SimpleNamespace(streams=("broken", "well", "overtaken")))


class State:
    """Stands for the database: three certificates are due; what is kept is remembered."""

    kept: list[Any] = []
    due: list[Due] = []

    def __init__(self, runtime: Any) -> None:
        pass

    def ask(self, question: Any) -> Any:
        return State.due if question is certifying.certificates.due else question(None)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(runtime: Any, state: Any, stream: str, *, files_of: int | None) -> History:
        if stream == "broken":
            raise LookupError("no such stream")
        return History(stream, "bronze", 4, "q", Chain([], False), None, {})

    monkeypatch.setattr(certifying, "StateProbe", State)
    monkeypatch.setattr(certifying, "read_history", read)
    monkeypatch.setattr(certifying, "_keep", lambda connection, found: State.kept.append((found.stream, found.fence, str(found.color))))
    monkeypatch.setattr(State, "kept", [])
    monkeypatch.setattr(State, "due", [Due("undeclared", 4, None), Due("broken", 4, None), Due("well", 4, None), Due("overtaken", 3, None)])


def test_an_error_in_one_stream_hides_no_other() -> None:
    """It is told with its reason; what cannot be known is kept as unknown."""
    broken, well, _ = certifying.certify_due(RUNTIME)
    assert (broken.certificate, broken.error) == (None, "LookupError: no such stream")
    assert well.certificate is not None and State.kept == [("well", 4, "unknown")], "and a launch that another has followed gets none"


def test_a_red_certificate_that_stands_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many commits came since: what was wrong must not leave the certificate's sight by itself."""
    asked = []

    def read(runtime: Any, state: Any, stream: str, *, files_of: int | None) -> History:
        asked.append(files_of)
        return History(stream, "bronze", 4, "q", Chain([], False), None, {})

    monkeypatch.setattr(certifying, "read_history", read)
    monkeypatch.setattr(State, "due", [Due("well", 4, 1, whole=True), Due("overtaken", 4, 1)])
    certifying.certify_due(RUNTIME)
    assert asked == [None, certifying.AROUND]


def test_what_takes_too_long_waits_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """No certificate is begun once the budget is spent."""
    monkeypatch.setattr(certifying, "BUDGET_SECONDS", -1.0)
    assert certifying.certify_due(RUNTIME) == []


def test_a_database_that_is_away_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog's run goes on."""

    def away(self: State, question: Any) -> Any:
        raise StateUnavailable("away")

    monkeypatch.setattr(State, "ask", away)
    assert certifying.certify_due(RUNTIME) == []
