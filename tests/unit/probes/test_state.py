"""The kept SQL connection."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from k2.probes import state
from k2.probes.state import StateProbe
from k2.registry.observed import Wanted
from k2.state.database import StateUnavailable


class Session:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The sessions that were opened, in order."""
    found: list[Session] = []

    def session(runtime: Any, role: str) -> Session:
        assert role == "control"
        found.append(Session())
        return found[-1]

    monkeypatch.setattr(state.database, "session", session)
    return found


def test_one_connection_serves_many_questions(opened: list[Session]) -> None:
    """A healthy connection is kept until the probe is closed."""
    probe = StateProbe(None)
    assert [probe.ask(lambda c: 1), probe.ask(lambda c: 2)] == [1, 2]
    probe.close()
    assert [s.closed for s in opened] == [True]


def test_a_broken_connection_is_replaced_once(opened: list[Session]) -> None:
    """After PostgreSQL was restarted the question is asked again; when that fails too, it is told."""
    probe = StateProbe(None)
    probe.ask(lambda c: None)

    def question(connection: Any) -> str:
        if connection is opened[0]:
            raise psycopg.OperationalError("terminating connection")
        return "answer"

    assert probe.ask(question) == "answer"
    assert opened[0].closed and len(opened) == 2

    def hopeless(connection: Any) -> None:
        raise psycopg.OperationalError("the server is gone")

    with pytest.raises(StateUnavailable, match="broke off: the server is gone"):
        probe.ask(hopeless)
    assert len(opened) == 3


def test_wanted_tells_rows_apart_from_silence(opened: list[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without a row is an error of its own, and a silent database makes all unknown."""
    row = Wanted("running", 1, 0)
    monkeypatch.setattr(state.streams, "wanted_all", lambda connection: {"a": row})
    found = StateProbe(None).wanted(["a", "b"])
    assert found["a"].value == row
    assert found["b"].error == "stream 'b' is not registered in the database: run ./k2 up again"

    def silent(runtime: Any, role: str) -> None:
        raise StateUnavailable("PostgreSQL did not answer")

    monkeypatch.setattr(state.database, "session", silent)
    found = StateProbe(None).wanted(["a", "b"])
    assert [found[n].error for n in "ab"] == ["StateUnavailable: PostgreSQL did not answer"] * 2
