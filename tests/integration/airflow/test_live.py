"""The DAGs in a running Airflow: parsed, scheduled, and doing what their runbooks say."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from k2.launchers.client import AgentClient
from k2.processes import ProcessId, family
from k2.registry.observed import DriverState
from k2.registry.runtime import Runtime
from k2.state import incidents, streams
from k2.state.database import connect

from .conftest import Airflow, wait_for

Messages = Callable[[], list[dict[str, Any]]]
UP = 240.0
REASON = "integration test of the control form"


def committing(runtime: Runtime, stream: str, *, above: int = 0) -> int | None:
    """The fence of the stream's launch once it has committed, if that fence is above the given one."""
    with connect(runtime, "reader") as connection:
        now = streams.wanted(connection, stream)
    return now.fence if now.first_commit_at is not None and now.ended_at is None and now.fence > above else None


def driver_of(runtime: Runtime, stream: str) -> ProcessId:
    """The process of the stream's driver, which must run."""
    with AgentClient(runtime) as agent:
        driver = agent.drivers()[stream][0]
    assert driver.state is DriverState.RUNNING and driver.pid is not None
    process = ProcessId.of(driver.pid)
    assert process is not None
    return process


def test_no_import_errors_and_nothing_paused(ui: Airflow) -> None:
    """Every DAG is parsed and runs from the first moment; the plugin is loaded."""
    assert ui.get("importErrors")["total_entries"] == 0
    assert ui.get("plugins/importErrors")["total_entries"] == 0
    dags = wait_for("seven DAGs", lambda: found if len(found := ui.get("dags")["dags"]) == 7 else None, 60)
    assert {d["dag_id"]: d["is_paused"] for d in dags} == dict.fromkeys(
        ("streams_watch", "streams_control", "maintenance_window", "checkpoints_prune", "checkpoints_backup", "iceberg_maintenance", "platform_health"), False
    )


def test_airflow_starts_the_streams(platform_stack: Runtime) -> None:
    """Nobody but streams_watch launches drivers, and every stream commits."""
    for stream in platform_stack.platform.streams:
        wait_for(f"first commit of {stream}", lambda stream=stream: committing(platform_stack, stream), UP)


def test_a_killed_driver_comes_back_and_people_are_told(platform_stack: Runtime, slack: Messages) -> None:
    """kill -9: a higher fence commits, and one message says what happened and later how it ended."""
    stream = "bronze_kraken"
    before = wait_for("driver", lambda: committing(platform_stack, stream), UP)
    told = len(slack())
    driver_of(platform_stack, stream).send(signal.SIGKILL)
    wait_for("commit under a higher fence", lambda: committing(platform_stack, stream, above=before), UP)

    def resolved() -> dict[str, Any] | None:
        return next((m for m in slack()[told:] if m["text"].startswith(f"Resolved: Stream {stream} died")), None)

    message = wait_for("resolved message", resolved, 90)
    assert message["channel"] == platform_stack.platform.alerts.routes.ticket
    assert f"{platform_stack.airflow}/dags/streams_watch" in str(message["blocks"])
    with connect(platform_stack, "reader") as connection:
        (launch,) = [row for row in streams.launches(connection, stream) if row["fence"] == before]
        assert incidents.open_incidents(connection) == [] or all(i["key"] != f"stream:{stream}" for i in incidents.open_incidents(connection))
    assert (launch["end_reason"], launch["exit_code"]) == ("died", -signal.SIGKILL)


@pytest.mark.full
def test_a_frozen_driver_is_replaced(platform_stack: Runtime, slack: Messages) -> None:
    """SIGSTOP to Python and JVM: found by what does not move, restarted under a higher fence, told; the thawed one is gone."""
    stream = "bronze_binance"
    before = wait_for("driver", lambda: committing(platform_stack, stream), UP)
    told = len(slack())
    leader = driver_of(platform_stack, stream)
    for process in family([leader]):
        process.send(signal.SIGSTOP)
    wait_for("commit under a higher fence", lambda: committing(platform_stack, stream, above=before), UP)
    assert not leader.alive
    with connect(platform_stack, "reader") as connection:
        frozen, successor = [row for row in streams.launches(connection, stream) if row["fence"] in (before, before + 1)]
    assert frozen["end_reason"] == "hung"
    assert "does not answer" in successor["reason"] or "frozen" in successor["reason"], successor["reason"]
    wait_for("message", lambda: next((m for m in slack()[told:] if f"Stream {stream} hangs" in m["text"]), None), 90)


def test_control_refuses_an_empty_reason(ui: Airflow) -> None:
    """The form's rule is Airflow's answer, before anything is recorded."""
    answer = ui.trigger("streams_control", stream="silver_kraken", action="stop", reason="because")
    assert answer.status_code == 400 and "too short" in answer.text
    assert ui.trigger("streams_control", stream="gold_kraken", action="stop", reason=REASON).status_code == 400


@pytest.mark.full
def test_control_stops_and_starts_a_stream(platform_stack: Runtime, ui: Airflow) -> None:
    """A person's wish is recorded with the name, fulfilled by the watchdog, and awaited without a worker slot."""
    stream = "silver_kraken"
    fence = wait_for("driver", lambda: committing(platform_stack, stream), UP)
    run = ui.trigger("streams_control", stream=stream, action="stop", reason=REASON).raise_for_status().json()["dag_run_id"]
    assert ui.finished("streams_control", run, 180) == "success"
    with connect(platform_stack, "reader") as connection:
        now = streams.wanted(connection, stream)
        audit = connection.execute("SELECT who, action, target, reason FROM k2.audit ORDER BY id DESC LIMIT 1").fetchone()
    assert (now.desired, now.fence, now.ended_at is not None) == ("stopped", fence, True)
    assert audit == {"who": "admin", "action": "stop", "target": stream, "reason": REASON}
    again = ui.trigger("streams_control", stream=stream, action="start", reason=REASON).raise_for_status().json()["dag_run_id"]
    assert ui.finished("streams_control", again, UP + 60) == "success"
    assert wait_for("commit after the start", lambda: committing(platform_stack, stream, above=fence), UP) == fence + 1


def test_starting_what_runs_disturbs_nothing(platform_stack: Runtime, ui: Airflow) -> None:
    """A start of running streams is noted and replaces no driver."""
    fences = {s: wait_for(f"driver of {s}", lambda s=s: committing(platform_stack, s), UP) for s in platform_stack.platform.streams}
    run = ui.trigger("streams_control", stream="all", action="start", reason=REASON).raise_for_status().json()["dag_run_id"]
    assert ui.finished("streams_control", run, 120) == "success"
    assert {s: committing(platform_stack, s) for s in fences} == fences


@pytest.mark.full
def test_an_incident_is_told_within_the_minute(platform_stack: Runtime, ui: Airflow, slack: Messages) -> None:
    """Opened, told by the clock's next run; then resolved, told by a run that a person starts: one message that changes, and a reply in its thread."""
    with connect(platform_stack, "control") as connection:
        incidents.open_incident(connection, "test:subject", "digest", "Test of the alert route", "nothing happened <at all>")

    def opened() -> dict[str, Any] | None:
        return next((m for m in slack() if m["text"].startswith("Test of the alert route")), None)

    first = wait_for("message", opened, 90)
    assert first["channel"] == platform_stack.platform.alerts.routes.digest and "&lt;at all&gt;" in str(first["blocks"])
    with connect(platform_stack, "control") as connection:
        incidents.resolve_incident(connection, "test:subject", "the test is over")
    ui.trigger("streams_watch").raise_for_status()
    reply = wait_for("reply", lambda: next((m for m in slack() if m["thread_ts"] == first["ts"]), None), 90)
    assert reply["text"].endswith("the test is over")
    assert next(m for m in slack() if m["ts"] == first["ts"])["text"].startswith("Resolved: ")


def test_reports_are_made(platform_stack: Runtime, ui: Airflow) -> None:
    """The two reports, started by hand, read the real platform and change nothing in it."""
    runs = {dag: ui.trigger(dag).raise_for_status().json()["dag_run_id"] for dag in ("iceberg_maintenance", "platform_health")}
    assert {dag: ui.finished(dag, run, 240) for dag, run in runs.items()} == dict.fromkeys(runs, "success")
    tables = ui.result("iceberg_maintenance", runs["iceberg_maintenance"], "examine")
    assert [t["table"] for t in tables["tables"]] == list(platform_stack.platform.tables)
    assert all(t["files"]["count"] > 0 for t in tables["tables"] if t["table"] != "silver_dlq_trades"), tables["markdown"]
    health = ui.result("platform_health", runs["platform_health"], "examine")
    by_check = {(c["check"], c["subject"]): c for c in health["checks"]}
    for stream in platform_stack.platform.streams:
        assert by_check["stream", stream]["status"] == "green", health["markdown"]
        assert by_check["memory", stream]["value"] > 0
        assert by_check["lag_rows", stream]["value"] is not None
    assert by_check["memory", "host_agent"]["status"] == "green", "drivers and spares have budgets of their own"
    assert by_check["dlq_rate", "binance"]["value"] is not None
    assert "| status | check |" in health["markdown"]


def test_maintenance_cannot_be_told_to_act(ui: Airflow) -> None:
    """The dry run is a constant of the form."""
    assert ui.trigger("iceberg_maintenance", dry_run=False).status_code == 400
