"""Checkpoints that people retire, restore and back up through a running Airflow, of a stream that goes on afterwards."""

from __future__ import annotations

import time

import pytest

from k2.checkpoints.backup import backups_of
from k2.checkpoints.entries import entries
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.reader import read_tail
from k2.registry.runtime import Runtime

from .conftest import Airflow, wait_for
from .test_live import UP, committing
from .test_rebuild_request import certificate
from .test_requests import DAG, asked, rows, waits

STREAM = "silver_kraken"


def approved(ui: Airflow, **conf: str) -> str:
    """A risky request that somebody approves. Returns its run, which has succeeded."""
    run = asked(ui, **conf)
    waits(ui, run)
    time.sleep(10)  # Airflow asks again when the answer comes before the asking worker has left, which takes it five seconds (airflow#71580)
    path = f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    ui.http.patch(path, json={"chosen_options": ["Approve"], "params_input": {}}).raise_for_status()
    assert ui.finished(DAG, run, 180) == "success", ui.log(DAG, run, "record")
    return run


@pytest.mark.full
@pytest.mark.timeout(900)
def test_retired_restored_and_backed_up(platform_stack: Runtime, ui: Airflow) -> None:
    """Retired, it is not started; restored, it goes on as the same query with a green certificate; a backup is proven while it runs."""
    fence = wait_for("driver", lambda: committing(platform_stack, STREAM), UP)
    path = platform_stack.checkpoint(STREAM)
    assert ui.finished(DAG, asked(ui, stream=STREAM, action="stop"), 180) == "success"
    before = read_tail(path)

    retired = approved(ui, stream=STREAM, action="retire")
    assert not path.exists() and [e.wrong for e in entries(quarantine_of(platform_stack.checkpoints)) if e.folder.name.startswith(path.name)] == [None]
    refused = asked(ui, stream=STREAM, action="start")
    assert ui.finished(DAG, refused, 90) == "failed" and "retired" in ui.log(DAG, refused, "check")

    restored = approved(ui, stream=STREAM, action="restore")
    assert read_tail(path) == before
    assert ui.finished(DAG, asked(ui, stream=STREAM, action="start"), UP + 60) == "success"
    after = wait_for("its commit", lambda: committing(platform_stack, STREAM, above=fence), UP)
    found = wait_for("a certificate", lambda: certificate(platform_stack, STREAM, after), 180)
    assert found["color"] == "green", found["checks"]
    assert read_tail(path).query_id == before.query_id
    assert [[row["action"] for row in rows(platform_stack, run)][:1] for run in (retired, restored)] == [["retire"], ["restore"]]

    run = ui.trigger("checkpoints_backup", stream="all").raise_for_status().json()["dag_run_id"]
    assert ui.finished("checkpoints_backup", run, 240) == "success"
    done = ui.result("checkpoints_backup", run, "report")
    assert set(done["backed_up"]) == set(platform_stack.platform.streams)
    assert [e.wrong for e in entries(backups_of(platform_stack.checkpoints, path.name))] == [None]
