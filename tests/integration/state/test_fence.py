"""The fence in a real PostgreSQL: what the catalog refuses, and what each role may do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest

from k2.registry.observed import Action, Decision, Verdict
from k2.registry.runtime import Role, Runtime
from k2.state import database, incidents, streams, verdicts, watchers

A, B = "bronze_binance", "bronze_kraken"


@pytest.fixture
def clean(own_database: Runtime) -> Iterator[Runtime]:
    """Both streams registered, wanted running, at fence 5 and 9; one catalog row each."""
    with database.connect(own_database, "admin") as admin:
        admin.execute("TRUNCATE k2.launches, k2.outages, k2.verdicts, k2.incidents, k2.audit, k2.watchers, public.iceberg_tables")
        admin.execute("DELETE FROM k2.streams")
        admin.execute("INSERT INTO k2.streams (stream, fence) VALUES (%s, 5), (%s, 9)", (A, B))
        for table in ("a", "b"):
            admin.execute("INSERT INTO iceberg_tables VALUES ('k2', 'market_data', %s, 'loc-0', NULL, 'TABLE')", (table,))
    yield own_database


def session(runtime: Runtime, role: Role, stream: str | None = None, fence: int | str | None = None) -> closing[psycopg.Connection]:
    """A session as a driver opens it: stream and fence are part of the connection's own options."""
    options = " ".join(f"-c k2.{name}={value}" for name, value in (("stream", stream), ("fence", fence)) if value is not None)
    return closing(psycopg.connect(**runtime.conninfo(role), options=options, autocommit=True))


COMMIT = "UPDATE iceberg_tables SET metadata_location = 'loc-1', previous_metadata_location = 'loc-0' WHERE table_name = %s AND metadata_location = 'loc-0'"


def commit(connection: psycopg.Connection, table: str = "a") -> int:
    """What JdbcCatalog does at a commit. Returns the rows that it changed."""
    return connection.execute(COMMIT, (table,)).rowcount


def location(runtime: Runtime, table: str = "a") -> str:
    with session(runtime, "reader") as reader:
        return reader.execute("SELECT metadata_location FROM iceberg_tables WHERE table_name = %s", (table,)).fetchone()[0]


def test_the_current_fence_commits(clean: Runtime) -> None:
    """A writer that names its stream and the current fence passes; the catalog's own compare-and-swap still works."""
    with session(clean, "writer", A, 5) as writer:
        assert commit(writer) == 1
        assert commit(writer) == 0


@pytest.mark.parametrize(
    ("stream", "fence", "state", "words"),
    [
        (A, 4, "K2F01", "stream bronze_binance holds epoch 4, current is 5"),
        (A, 6, "K2F01", "holds epoch 6, current is 5"),
        (A, "05", "K2F01", "holds epoch 05"),
        (A, None, "K2F01", "holds epoch , current is 5"),
        (B, 5, "K2F01", "stream bronze_kraken holds epoch 5, current is 9"),
        ("nobody", 5, "K2F02", "stream nobody is not registered"),
        (None, 5, "K2F02", "a writer must name its stream and fence"),
        (None, None, "K2F02", "a writer must name its stream and fence"),
        ("", 5, "K2F02", "a writer must name its stream and fence"),
    ],
)
def test_every_other_writer_is_refused(clean: Runtime, stream: str | None, fence: int | str | None, state: str, words: str) -> None:
    """A stale, a future, a foreign, an undeclared or a nameless writer changes nothing: not by update, insert or table creation."""
    with session(clean, "writer", stream, fence) as writer:
        for statement in (COMMIT.replace("%s", "'a'"), "INSERT INTO iceberg_tables VALUES ('k2', 'market_data', 'c', 'loc-0', NULL, 'TABLE')"):
            with pytest.raises(psycopg.Error) as refused:
                writer.execute(statement)
            assert refused.value.sqlstate == state
            assert words in str(refused.value) and "k2 fence:" in str(refused.value)
    assert location(clean) == "loc-0"


def test_a_writer_cannot_talk_its_way_in(clean: Runtime) -> None:
    """Naming itself later counts as naming itself: the number must be the current one, and the writer cannot read it."""
    with session(clean, "writer") as writer:
        writer.execute(f"SET k2.stream = '{A}'")
        writer.execute("SET k2.fence = '4'")
        with pytest.raises(psycopg.Error, match="k2 fence:"):
            commit(writer)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("SELECT fence FROM k2.streams")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("ALTER TABLE iceberg_tables DISABLE TRIGGER k2_fence")


def test_maintenance_passes_without_a_fence(clean: Runtime) -> None:
    """Sessions that belong to no stream change the catalog freely; one that names a stream must hold its fence."""
    with session(clean, "control") as control:
        assert commit(control) == 1
    with session(clean, "control", B, 8) as control, pytest.raises(psycopg.Error, match="holds epoch 8, current is 9"):
        commit(control, "b")


def test_one_stream_does_not_fence_another(clean: Runtime) -> None:
    """After a raise the old driver of that stream is out, its successor is in, other streams go on."""
    with session(clean, "writer", A, 5) as old, session(clean, "writer", B, 9) as other:
        with database.connect(clean, "control") as control:
            assert streams.raise_fence(control, A, seen=5, generation=1, reason="test", detected_at=None) == 6
        with pytest.raises(psycopg.Error, match="holds epoch 5, current is 6"):
            commit(old)
        assert commit(other, "b") == 1
    with session(clean, "writer", A, 6) as successor:
        assert commit(successor) == 1


def test_a_raise_waits_for_a_commit_in_flight_and_a_commit_for_a_raise(clean: Runtime) -> None:
    """Between a commit and a raise there is an order: whoever comes second sees what the first one did."""
    with session(clean, "writer", A, 5) as writer, session(clean, "control") as control:
        writer.autocommit = False
        commit(writer)
        control.execute("SET lock_timeout = 200")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            control.execute("UPDATE k2.streams SET fence = fence + 1 WHERE stream = %s", (A,))
        writer.commit()
        assert location(clean) == "loc-1"
        control.autocommit = False
        control.execute("UPDATE k2.streams SET fence = fence + 1 WHERE stream = %s", (A,))
        writer.execute("SET lock_timeout = 200")
        writer.commit()
        with pytest.raises(psycopg.errors.LockNotAvailable):
            writer.execute("UPDATE iceberg_tables SET metadata_location = 'loc-2' WHERE table_name = 'a'")
        writer.rollback()
        control.commit()
        with pytest.raises(psycopg.Error, match="current is 6"):
            writer.execute("UPDATE iceberg_tables SET metadata_location = 'loc-2' WHERE table_name = 'a'")


def test_of_many_watchdogs_one_raises(clean: Runtime) -> None:
    """Eight that saw the same fence: one takes the stream, the others lose the race, and one intent is recorded."""
    ready, won, lost = threading.Barrier(8), [], []

    def take() -> None:
        with database.connect(clean, "control") as connection:
            ready.wait()
            try:
                won.append(streams.raise_fence(connection, A, seen=5, generation=1, reason="test", detected_at=None))
            except streams.LostRace as error:
                lost.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [6] and len(lost) == 7
    with database.connect(clean, "control") as connection:
        assert [row["fence"] for row in streams.launches(connection, A)] == [6]


def test_a_raise_that_is_rolled_back_leaves_the_old_driver_in(clean: Runtime) -> None:
    """Fence and intent are one transaction: both or neither."""
    with pytest.raises(RuntimeError, match="power cut"), database.connect(clean, "control") as control:
        streams.raise_fence(control, A, seen=5, generation=1, reason="test", detected_at=None)
        raise RuntimeError("power cut")
    with session(clean, "writer", A, 5) as writer:
        assert commit(writer) == 1
    with database.connect(clean, "control") as control:
        assert streams.launches(control, A) == []


def test_the_life_of_a_launch_in_the_ledger(clean: Runtime) -> None:
    """Intent, launch, first commit, end and forgiveness are read back as they were written, and first words stand."""
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    with database.connect(clean, "control") as c:
        assert streams.wanted(c, A).launch_generation is None
        assert streams.want(c, A, "running", who="me", action="restart", reason="test") == 2
        assert streams.raise_fence(c, A, seen=5, generation=2, reason="test", detected_at=late) == 6
        for how in ("cold", "spare"):
            streams.launched(c, A, 6, how)
        for batch in (7, 8):
            streams.first_commit(c, A, 6, early, batch)
        streams.ended(c, A, 6, at=late, exit_code=-9, reason="died")
        streams.ended(c, A, 6, at=early, exit_code=0, reason="stopped")
        wanted = streams.wanted(c, A)
        assert streams.wanted_all(c)[A] == wanted
        assert (wanted.generation, wanted.fence, wanted.launch_generation, wanted.deaths, wanted.last_death_at) == (2, 6, 2, 1, late)
        assert (wanted.first_commit_at, wanted.first_commit_batch, wanted.ended_at) == (early, 7, late)
        (row,) = streams.launches(c, A)
        assert (row["how"], row["exit_code"], row["end_reason"], row["detected_at"]) == ("cold", -9, "died", late)
        streams.raise_fence(c, A, seen=6, generation=2, reason="again", detected_at=None)
        assert streams.wanted(c, A).deaths == 1
        streams.forgive(c, A, 7)
        streams.forgive(c, A, 6)
        assert (streams.wanted(c, A).deaths, streams.wanted(c, A).last_death_at) == (0, late)
        with pytest.raises(LookupError, match="'nobody' is not registered"):
            streams.wanted(c, "nobody")


def test_a_verdict_keeps_the_moment_it_began(clean: Runtime) -> None:
    """`since` stays while the verdict does, and a death's moment can be asked for."""
    dead, times = Decision(A, Verdict.DEAD, Action.START, "x"), [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    with database.connect(clean, "control") as c:
        verdicts.record(c, [(dead, b"{}")], times[0])
        verdicts.record(c, [(dead, b'{"a": 1}')], times[1])
        assert verdicts.dead_since(c) == {A: times[0]}
        verdicts.record(c, [(Decision(A, Verdict.IDLE, Action.NONE, "x"), b"{}")], times[2])
        assert verdicts.dead_since(c) == {}


def test_an_incident_is_opened_and_resolved_once(clean: Runtime) -> None:
    """One open incident per key, however many watchdogs report it; soon after its end it is opened again, later the next one is another."""
    with database.connect(clean, "control") as c:
        first = incidents.open_incident(c, "stream:a", "page", "Stream a died", "killed")
        assert first is not None
        assert incidents.open_incident(c, "stream:a", "page", "Stream a died", "killed again") is None
        assert [i["detail"] for i in incidents.open_incidents(c)] == ["killed again"]
        assert incidents.resolve_incident(c, "stream:a", "committed") == first
        assert incidents.resolve_incident(c, "stream:a", "committed") is None
        assert incidents.open_incident(c, "stream:a", "page", "Stream a hangs", "again") == first, "a moment later it is the same incident"
        (again,) = incidents.tellable(c)
        assert (again["times"], again["title"], again["resolved_at"], again["resolution"]) == (2, "Stream a hangs", None, None)
        incidents.told(c, again | {"times": 1}, {"ts": "old"})
        assert incidents.tellable(c)[0]["told_times"] == 0, "what was told was the first time"
        incidents.told(c, again, {"ts": "1"})
        assert incidents.tellable(c)[0]["told_times"] == 2
        incidents.resolve_incident(c, "stream:a", "committed")
        c.execute("UPDATE k2.incidents SET resolved_at = resolved_at - interval '11 minutes'")
        assert incidents.open_incident(c, "stream:a", "page", "Stream a died", "killed") not in (None, first)


def test_migrations_are_applied_once(clean: Runtime) -> None:
    """A second run changes nothing, and neither does registering the platform again."""
    assert database.migrate(clean) == []
    database.register(clean, clean.platform)
    database.register(clean, clean.platform)
    with database.connect(clean, "control") as c:
        found = streams.wanted_all(c)
        watchers.looked(c, "test", "one")
        watchers.looked(c, "test", "two")
        assert [w["detail"] for w in watchers.watchers(c)] == ["two"]
    assert set(found) == set(clean.platform.streams)
    assert (found[A].fence, found[B].fence) == (5, 9)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("reader", "UPDATE iceberg_tables SET metadata_location = 'x'"),
        ("reader", "DELETE FROM iceberg_tables"),
        ("reader", "UPDATE k2.streams SET fence = 1"),
        ("reader", "INSERT INTO k2.audit (who, action, target, reason) VALUES ('a', 'b', 'c', 'd')"),
        ("reader", "CREATE TABLE public.mine (a int)"),
        ("reader", "CREATE TABLE k2.mine (a int)"),
        ("writer", "SELECT * FROM k2.streams"),
        ("writer", "UPDATE k2.streams SET fence = 99"),
        ("writer", "DELETE FROM iceberg_tables"),
        ("writer", "DROP TABLE iceberg_tables"),
        ("writer", "CREATE TABLE public.mine (a int)"),
        ("control", "UPDATE k2.audit SET who = 'somebody else'"),
        ("control", "DELETE FROM k2.audit"),
        ("control", "DROP TABLE k2.launches"),
        ("control", "ALTER TABLE iceberg_tables DISABLE TRIGGER k2_fence"),
        ("control", "CREATE OR REPLACE FUNCTION k2.check_fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"),
        ("control", "COPY k2.streams TO PROGRAM 'true'"),
    ],
)
def test_no_role_does_more_than_it_should(clean: Runtime, role: Role, statement: str) -> None:
    """Readers change nothing, writers see nothing of the suite, the watchdog cannot rewrite the audit log or lift the fence."""
    with session(clean, role, A, 5) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_each_role_stays_in_its_database(clean: Runtime) -> None:
    """Airflow's role does not enter the lakehouse, and the lakehouse's roles do not enter Airflow's database."""
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(**clean.conninfo("airflow"))
    for role in ("writer", "reader"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**{**clean.conninfo(role), "dbname": "airflow"})


def test_a_silent_database_is_unavailable(clean: Runtime) -> None:
    """No answer is an error with the address, in both ways to connect."""
    away = clean.model_copy(update={"postgres_port": 1})
    with pytest.raises(database.StateUnavailable, match="127.0.0.1:1 did not answer"), database.connect(away, "control"):
        pass
    with pytest.raises(database.StateUnavailable, match="127.0.0.1:1 did not answer"):
        database.session(away, "control")
