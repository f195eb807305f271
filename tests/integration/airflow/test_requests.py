"""Requests of people in a running Airflow: refused, approved, rejected, and what the audit log keeps of them."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from k2.registry.runtime import Runtime
from k2.stack.home import Home
from k2.stack.status import read_status
from k2.state import audit, incidents, streams
from k2.state.database import connect

from .conftest import Airflow, wait_for
from .test_live import REASON, UP, Messages, committing

DAG = "streams_control"
LAYER = ("silver_binance", "silver_kraken")


def asked(ui: Airflow, **conf: str) -> str:
    """Trigger a request. Returns its run."""
    return str(ui.trigger(DAG, reason=REASON, **conf).raise_for_status().json()["dag_run_id"])


def waits(ui: Airflow, run: str) -> dict[str, Any]:
    """The question that the run asks, once it waits for an answer."""
    path = f"dags/{DAG}/dagRuns/{run}/taskInstances/approve"
    wait_for("a question", lambda: ui.get(path)["state"] == "awaiting_input", 60)
    return ui.get(f"{path}/-1/hitlDetails")


def states(ui: Airflow, run: str) -> dict[str, str]:
    return {ti["task_id"]: ti["state"] for ti in ui.get(f"dags/{DAG}/dagRuns/{run}/taskInstances")["task_instances"]}


def rows(runtime: Runtime, run: str) -> list[dict[str, Any]]:
    """What the audit log keeps of one request, oldest first."""
    with connect(runtime, "reader") as connection:
        return [row for row in reversed(audit.recent(connection)) if row["request"] == run]


def generations(runtime: Runtime) -> dict[str, int]:
    with connect(runtime, "reader") as connection:
        return {name: wanted.generation for name, wanted in streams.wanted_all(connection).items()}


def test_a_request_that_makes_no_sense_is_refused(platform_stack: Runtime, ui: Airflow) -> None:
    """The run fails at its check with the field, the value and the fix; nothing is recorded, and it is no incident."""
    wait_for("verdict", lambda: committing(platform_stack, "bronze_kraken"), UP)
    before = generations(platform_stack)
    run = asked(ui, stream="all", action="adopt")
    other = asked(ui, stream="bronze_kraken", action="adopt")
    assert [ui.finished(DAG, name, 90) for name in (run, other)] == ["failed", "failed"]
    assert states(ui, run) == {"check": "failed"} | dict.fromkeys(("approve", "prove", "record", "reach"), "upstream_failed")
    assert "stream: 'all' with action 'adopt'" in ui.log(DAG, run, "check")
    assert "only a stream that is held as REWIND needs that: use action 'restart'" in ui.log(DAG, other, "check")
    assert generations(platform_stack) == before and rows(platform_stack, run) == []
    with connect(platform_stack, "reader") as connection:
        assert connection.execute("SELECT 1 FROM k2.incidents WHERE key LIKE 'dag:streams_control:check%'").fetchone() is None


def test_no_answer_is_a_no(platform_stack: Runtime, ui: Airflow) -> None:
    """Stopping a layer waits for an approval; when its time is over nothing has changed, and that is no failure."""
    before = generations(platform_stack)
    run = asked(ui, stream="silver", action="stop")
    question = waits(ui, run)
    assert (question["subject"], question["defaults"], question["options"]) == ("admin asks for stop of silver", ["Reject"], ["Approve", "Reject"])
    assert all(f"| {stream} |" in question["body"] for stream in LAYER) and REASON in question["body"] and "Nothing is lost or doubled" in question["body"]
    login = platform_stack.conninfo("airflow") | {"dbname": "airflow"}
    with psycopg.connect(**login) as connection:  # type: ignore[arg-type]
        connection.execute("UPDATE task_instance SET trigger_timeout = now() - interval '1 second' WHERE run_id = %s AND task_id = 'approve'", (run,))
    assert ui.finished(DAG, run, 120) == "success"
    assert states(ui, run) == {"check": "success", "approve": "success", "prove": "skipped", "record": "skipped", "reach": "skipped"}
    assert generations(platform_stack) == before
    kept = rows(platform_stack, run)
    assert [(row["target"], row["outcome"], row["approved_by"]) for row in kept] == [(stream, "rejected", "nobody, in time") for stream in LAYER]
    assert "nothing was changed" in kept[0]["after"]["because"] and kept[0]["before"]["desired"] == "running"


def test_an_approved_stop_is_done_and_says_whether_it_drained(platform_stack: Runtime, ui: Airflow) -> None:
    """Approved by a person with a name: the layer drains, the audit log ties question, answer and outcome together, and a start needs nobody."""
    for stream in LAYER:
        wait_for(f"driver of {stream}", lambda stream=stream: committing(platform_stack, stream), UP)
    run = asked(ui, stream="silver", action="stop")
    waits(ui, run)
    time.sleep(10)  # Airflow asks again when the answer comes before the asking worker has left, which takes it five seconds (airflow#71580)
    path = f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    ui.http.patch(path, json={"chosen_options": ["Approve"], "params_input": {}}).raise_for_status()
    assert ui.finished(DAG, run, 180) == "success"
    reached = ui.result(DAG, run, "reach")["reached"]
    assert set(reached) == set(LAYER) and all("drained: every batch" in because for because in reached.values())
    kept = rows(platform_stack, run)
    assert sorted((row["outcome"], row["target"], row["who"]) for row in kept) == sorted((o, s, "admin") for o in ("recorded", "reached") for s in LAYER)
    assert [row["approved_by"] for row in kept] == ["admin", "admin", None, None]
    assert (kept[0]["before"]["desired"], kept[0]["after"]["desired"], kept[2]["after"]["desired"]) == ("running", "stopped", "stopped")
    assert kept[0]["before"]["query_id"] and kept[0]["before"]["batch"] is not None
    with connect(platform_stack, "reader") as connection:
        assert [streams.launches(connection, stream)[-1]["drained"] for stream in LAYER] == [True, True]
    again = asked(ui, stream="silver", action="start")
    assert ui.finished(DAG, again, UP + 60) == "success"


@pytest.mark.full
def test_an_upgrade_proves_first_then_hands_over(platform_stack: Runtime, ui: Airflow) -> None:
    """The shadow passes, the old driver drains, and its successor commits under the next fence."""
    stream = "bronze_binance"
    fence = wait_for("driver", lambda: committing(platform_stack, stream), UP)
    run = asked(ui, stream=stream, action="upgrade")
    assert ui.finished(DAG, run, 400) == "success", ui.log(DAG, run, "prove")
    proof = ui.result(DAG, run, "prove")
    (shadow,) = proof["shadows"]
    assert (shadow["outcome"], shadow["stream"]) == ("compatible", stream) and shadow["rows"] > 0
    assert committing(platform_stack, stream, above=fence) == fence + 1
    assert [row["outcome"] for row in rows(platform_stack, run)] == ["recorded", "reached"]
    assert "drained" in ui.result(DAG, run, "reach")["reached"][stream]
    assert not any((platform_stack.run / "shadows").iterdir())


@pytest.mark.full
def test_a_window_mutes_and_its_digest_tells(platform_stack: Runtime, ui: Airflow, slack: Messages) -> None:
    """Opened through its form: an incident is in the database and nowhere else; closed, one digest tells of it and the page comes."""
    refused = ui.trigger("maintenance_window", stream="all", hours=9, reason=REASON).raise_for_status().json()["dag_run_id"]
    assert ui.finished("maintenance_window", refused, 60) == "failed" and "hours: 9 is more than 8" in ui.log("maintenance_window", refused, "set")
    run = ui.trigger("maintenance_window", stream="bronze_kraken", hours=1, reason=REASON).raise_for_status().json()["dag_run_id"]
    assert ui.finished("maintenance_window", run, 60) == "success"
    assert [(w.scope, w.who) for w in read_status(Home.at(platform_stack.home)).windows] == [("bronze_kraken", "admin")]
    heard = len(slack())
    with connect(platform_stack, "control") as connection:
        incidents.open_incident(connection, "stream:bronze_kraken:drill", "page", "Drill in a window", "nothing is wrong")
        incidents.open_incident(connection, "stream:silver_kraken:drill", "digest", "Drill beside the window", "nothing is wrong")

    def told(text: str) -> dict[str, Any] | None:
        return next((m for m in slack()[heard:] if text in m["text"]), None)

    wait_for("the other incident", lambda: told("Drill beside the window"), 90)
    assert told("Drill in a window") is None
    close = ui.trigger("maintenance_window", stream="bronze_kraken", action="close", reason=REASON).raise_for_status().json()["dag_run_id"]
    assert ui.finished("maintenance_window", close, 60) == "success"
    digest = wait_for("digest", lambda: told("Maintenance of bronze_kraken is over: 1 incident"), 90)
    assert digest["channel"] == platform_stack.platform.alerts.routes.digest and "still open, and it pages" in str(digest["blocks"])
    assert wait_for("page", lambda: told("Drill in a window"), 30)["channel"] == platform_stack.platform.alerts.routes.page
    with connect(platform_stack, "control") as connection:
        for stream in ("bronze_kraken", "silver_kraken"):
            incidents.resolve_incident(connection, f"stream:{stream}:drill", "the drill is over")
    assert [row["action"] for row in rows(platform_stack, run) + rows(platform_stack, close)] == ["open window", "close window"]
