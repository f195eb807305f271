"""The report of checkpoints_backup, as Airflow runs it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from k2.airflow.backing import BackupFailed
from k2.airflow.backing_tasks import ReportBackups

MADE = {"stream": "bronze_x", "entry": "bronze-x-1", "committed": 7, "files": 5, "bytes": 900, "kept": 3}


def reported(monkeypatch: pytest.MonkeyPatch, streams: list[str] | None, done: list[Any]) -> dict[str, Any]:
    monkeypatch.setattr("k2.registry.runtime.load_runtime", lambda: SimpleNamespace(checkpoints=Path("/data/checkpoints")))
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(xcom_pull=lambda task_ids: streams if task_ids == "choose" else done, xcom_push=lambda key, value: pushed.update({key: value}))
    with DAG("backup", schedule=None):
        task = ReportBackups(task_id="report", choose_task_id="choose", back_up_task_id="back_up")
    try:
        return task.execute({"ti": ti, "outlet_events": {}})
    except BackupFailed:
        assert streams is None or pushed["return_value"]["failed"], "what was found is there to be read"
        raise


def test_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its name, its batch and how many are kept; and where they lie."""
    told = reported(monkeypatch, ["bronze_x"], [MADE])
    assert "| bronze_x | bronze-x-1 | 7 | 5 | 3 |" in told["markdown"] and "They lie below /data/checkpoints.backups." in told["markdown"]
    assert (told["backed_up"], told["failed"], told["bytes"]) == ({"bronze_x": "bronze-x-1"}, [], 900)


def test_one_that_failed_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that failed has left no result: the report is told first, then people hear of it."""
    with pytest.raises(BackupFailed, match="no backup of bronze_y: see the log of each in back_up"):
        reported(monkeypatch, ["bronze_x", "bronze_y"], [MADE, None])


def test_a_run_that_chose_nothing_does_not_look_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was in its way."""
    with pytest.raises(BackupFailed, match="choose failed: see its log"):
        reported(monkeypatch, None, [])
