"""What is taken over because nothing changed, and what never is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from k2.launchers.client import AgentUnavailable, Snapshot
from k2.probes import changes
from k2.probes.changes import WHOLE_EVERY_SECONDS, DriverChanges, WantedChanges
from k2.registry.observed import Driver, DriverState, Wanted
from k2.state.database import StateUnavailable

ROW = Wanted("running", 1, 1)
NEW = Driver(DriverState.RUNNING, fence=5, status_url="http://127.0.0.1:1/status")
OLD = Driver(DriverState.RUNNING, fence=4)


class Database:
    """Rows, the names that it tells, and how often it was read."""

    def __init__(self) -> None:
        self.rows = {"a": ROW, "b": ROW}
        self.told: list[str] = []
        self.statements: list[str] = []
        self.away = False
        self.session = 1

    def ask(self, question: Any) -> Any:
        if self.away:
            raise StateUnavailable("no answer")
        return question(self)

    def execute(self, statement: str) -> None:
        self.statements.append(statement)

    def notifies(self, timeout: float) -> Any:
        assert timeout == 0
        told, self.told = self.told, []
        return iter([SimpleNamespace(payload=name) for name in told])


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database()
    monkeypatch.setattr(changes.streams, "wanted_all", lambda c: made.statements.append("all") or dict(made.rows))
    monkeypatch.setattr(
        changes.streams, "wanted_of", lambda c, names: made.statements.append(f"of {sorted(names)}") or {n: made.rows[n] for n in names if n in made.rows}
    )
    return made


def test_rows_are_read_once_and_then_confirmed(database: Database) -> None:
    """The second look asks one question, brings the same rows with the moment of that question, and nothing has changed."""
    seconds = [0.0]
    wanted = WantedChanges(database, lambda: seconds[0])  # type: ignore[arg-type]
    wanted.look()
    assert database.statements == ["LISTEN k2_streams", "SELECT 1", "all"]
    before = datetime.now(UTC)
    readings, changed = wanted.look()
    assert database.statements[3:] == ["SELECT 1"] and changed == set()
    assert readings["a"].value == ROW and before <= readings["a"].at <= datetime.now(UTC)
    assert "not registered" in str(readings["c"].error)
    seconds[0] = WHOLE_EVERY_SECONDS
    wanted.look()
    assert database.statements[4:] == ["SELECT 1", "all"], "whatever nobody told is seen by then"


def test_a_row_that_the_database_names_is_read(database: Database) -> None:
    """Only that one, and it has changed; that a checkpoint went on is taken over without being news."""
    wanted = WantedChanges(database, lambda: 0.0)  # type: ignore[arg-type]
    wanted.look()
    database.rows |= {"a": replace(ROW, generation=2), "b": replace(ROW, known_batch=7)}
    database.told = ["a", "b", "a"]
    readings, changed = wanted.look()
    assert database.statements[-1] == "of ['a', 'b']" and changed == {"a"}
    assert readings["a"].value.generation == 2 and readings["b"].value.known_batch == 7  # type: ignore[union-attr]


def test_news_for_all_makes_all_be_read(database: Database) -> None:
    """Between two whole readings as well."""
    wanted = WantedChanges(database, lambda: 0.0)  # type: ignore[arg-type]
    wanted.look()
    database.rows["b"] = replace(ROW, generation=3)
    database.told = ["a", "*"]
    assert wanted.look()[1] == {"b"} and database.statements[-1] == "all"


def test_a_silent_database_confirms_nothing(database: Database) -> None:
    """Its rows are unknown while it is away, and all of them are read when it is back, over whatever connection."""
    wanted = WantedChanges(database, lambda: 0.0)  # type: ignore[arg-type]
    wanted.look()
    database.away = True
    readings, changed = wanted.look()
    assert changed is None and readings["a"].value is None and "no answer" in str(readings["a"].error)
    database.away = False
    database.statements.clear()
    database.rows["a"] = replace(ROW, fence=9)
    readings, changed = wanted.look()
    assert database.statements == ["LISTEN k2_streams", "SELECT 1", "all"] and changed is None
    assert readings["a"].value.fence == 9  # type: ignore[union-attr]
    assert wanted.look()[1] == set()


def test_a_new_connection_listens_again(database: Database) -> None:
    """What was told while nobody listened is read."""
    wanted = WantedChanges(database, lambda: 0.0)  # type: ignore[arg-type]
    wanted.look()
    other = Database()
    wanted._state = other  # type: ignore[assignment]
    wanted.look()
    assert other.statements[0] == "LISTEN k2_streams" and database.statements[-1] == "all"


class Agent:
    def __init__(self) -> None:
        self.drivers: dict[str, list[Driver]] = {"a": [NEW, OLD], "b": [NEW]}
        self.version = 7
        self.asked: list[int | None] = []
        self.away = False

    def changes(self, version: int | None) -> Snapshot | None:
        self.asked.append(version)
        if self.away:
            raise AgentUnavailable("refused")
        return None if version == self.version else Snapshot(self.version, dict(self.drivers))


def test_a_list_that_is_the_same_is_confirmed() -> None:
    """Older drivers and absent ones too, with the moment of the question."""
    agent = Agent()
    drivers = DriverChanges(agent, lambda: 0.0)  # type: ignore[arg-type]
    assert drivers.look("abc")[1] is None
    before = datetime.now(UTC)
    found, changed = drivers.look("abc")
    assert agent.asked == [None, 7] and changed == set() and found.version == 7
    assert found.newest["a"].value == NEW and found.newest["a"].at >= before and found.others["a"] == (OLD,)
    assert found.newest["c"].value == Driver(DriverState.ABSENT)


def test_changed_drivers_are_named() -> None:
    """One that ended, one that is new, one whose older driver went; memory is no change."""
    agent = Agent()
    drivers = DriverChanges(agent, lambda: 0.0)  # type: ignore[arg-type]
    drivers.look("abc")
    agent.version, agent.drivers = 8, {"a": [NEW], "b": [replace(NEW, memory_mb=5.0)], "c": [NEW]}
    assert drivers.look("abc")[1] == {"a", "c"}
    agent.version, agent.drivers = 9, {"a": [NEW], "b": [replace(NEW, state=DriverState.EXITED)]}
    assert drivers.look("abc")[1] == {"b", "c"}


def test_memory_is_taken_over_now_and_then() -> None:
    """Also while the list stands."""
    agent, seconds = Agent(), [0.0]
    drivers = DriverChanges(agent, lambda: seconds[0])  # type: ignore[arg-type]
    drivers.look("ab")
    agent.drivers["b"] = [replace(NEW, memory_mb=9.0)]
    assert drivers.look("ab")[0].newest["b"].value.memory_mb is None  # type: ignore[union-attr]
    seconds[0] = WHOLE_EVERY_SECONDS
    found, changed = drivers.look("ab")
    assert found.newest["b"].value.memory_mb == 9.0 and changed == set()  # type: ignore[union-attr]


def test_a_silent_agent_confirms_nothing() -> None:
    """No driver is what it was while the agent is away, and the whole list is asked for when it is back."""
    agent = Agent()
    drivers = DriverChanges(agent, lambda: 0.0)  # type: ignore[arg-type]
    drivers.look("ab")
    agent.away = True
    found, changed = drivers.look("ab")
    assert changed is None and found.version is None and found.others == {}
    assert [found.newest[name].error for name in "ab"] == ["AgentUnavailable: refused"] * 2
    agent.away = False
    found, changed = drivers.look("ab")
    assert agent.asked[-1] is None and changed is None and found.newest["a"].value == NEW
