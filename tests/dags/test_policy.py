"""What every DAG of the platform must have. A new DAG is listed here first."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.param import ParamsDict

from k2.airflow.callbacks import run_failed, task_failed, task_succeeded
from k2.airflow.dags import OWNER, START, Pool, Tag

DAGS = Path(__file__).resolve().parents[2] / "dags"
EXPECTED = {
    "streams_watch": {Tag.STREAMS, Tag.ACTS},
    "streams_control": {Tag.STREAMS, Tag.ACTS, Tag.MANUAL},
    "maintenance_window": {Tag.STREAMS, Tag.ACTS, Tag.MANUAL},
    "checkpoints_prune": {Tag.CHECKPOINTS, Tag.ACTS},
    "checkpoints_backup": {Tag.CHECKPOINTS, Tag.ACTS},
    "iceberg_maintenance": {Tag.TABLES, Tag.READS},
    "platform_health": {Tag.HEALTH, Tag.READS},
}
HEADINGS = ["## What it does", "## When it runs", "## What a failure means", "## Can it wait until morning", "## What to do next"]
every_dag = pytest.mark.parametrize("dag_id", EXPECTED)


def test_every_file_is_one_expected_dag(dags: dict[str, DAG]) -> None:
    """The DAG files, the DAGs and the list above are the same."""
    assert set(dags) == set(EXPECTED)
    assert {path.name for path in DAGS.glob("*.py")} == {f"{dag_id}_dag.py" for dag_id in EXPECTED}
    assert all(Path(dag.fileloc).name == f"{dag_id}_dag.py" for dag_id, dag in dags.items())


@every_dag
def test_a_person_understands_it(dags: dict[str, DAG], dag_id: str) -> None:
    """Owner, description, tags of the closed vocabulary, and the runbook with all its headings in order."""
    dag = dags[dag_id]
    assert dag.owner == OWNER
    assert dag.description and 30 <= len(dag.description) <= 150
    assert set(dag.tags) == EXPECTED[dag_id] <= set(Tag)
    assert dag.doc_md is not None
    assert [line for line in dag.doc_md.splitlines() if line.startswith("## ")] == HEADINGS
    assert dag.doc_md.startswith(f"# {dag_id}")


@every_dag
def test_it_reads_or_it_acts(dags: dict[str, DAG], dag_id: str) -> None:
    """A tag says whether a DAG may change something; none says both."""
    assert len({Tag.READS, Tag.ACTS} & set(dags[dag_id].tags)) == 1


@every_dag
def test_nothing_runs_without_limits(dags: dict[str, DAG], dag_id: str) -> None:
    """Runs and tasks have time limits, and a run outlasts all attempts of its tasks in a row."""
    dag = dags[dag_id]
    assert dag.dagrun_timeout is not None
    assert 1 <= dag.max_active_runs <= 16
    assert all(task.execution_timeout is not None for task in dag.tasks)
    longest = sum((_worst_case(task) for task in dag.tasks), timedelta())
    assert dag.dagrun_timeout >= min(longest, timedelta(minutes=15))


def _worst_case(task: object) -> timedelta:
    return (task.execution_timeout + task.retry_delay) * (task.retries + 1)  # type: ignore[attr-defined]


@every_dag
def test_failures_reach_people(dags: dict[str, DAG], dag_id: str) -> None:
    """A failed task, a failed run and a recovery call the platform's own callbacks."""
    dag = dags[dag_id]
    assert dag.on_failure_callback == run_failed
    assert all(task_failed in task.on_failure_callback and task_succeeded in task.on_success_callback for task in dag.tasks)


@every_dag
def test_it_starts_by_itself_and_catches_nothing_up(dags: dict[str, DAG], dag_id: str) -> None:
    """Unpaused when created, one static start date, no catch-up, no dependence on an earlier run."""
    dag = dags[dag_id]
    assert dag.is_paused_upon_creation is False
    assert dag.catchup is False
    assert dag.start_date == START
    assert not any(task.depends_on_past or task.wait_for_downstream for task in dag.tasks)


@every_dag
def test_forms_explain_themselves(dags: dict[str, DAG], dag_id: str) -> None:
    """Every field of a form has a title, a type and a description; a manual DAG has a form."""
    params: ParamsDict = dags[dag_id].params
    for name in params:
        schema = params.get_param(name)
        assert schema.description and schema.schema.get("title") and schema.schema.get("type"), name
    assert bool(params) or Tag.MANUAL not in dags[dag_id].tags


@pytest.mark.parametrize("dag_id", ["streams_control", "maintenance_window"])
def test_audited_action_demands_a_reason(dags: dict[str, DAG], dag_id: str) -> None:
    """No default, and no word that says nothing."""
    reason = dags[dag_id].params.get_param("reason")
    assert not reason.has_value
    assert reason.schema["minLength"] == 10


def test_readers_cannot_be_told_to_act(dags: dict[str, DAG]) -> None:
    """The dry run of the maintenance is a constant until it has hands."""
    dry_run = dags["iceberg_maintenance"].params.get_param("dry_run")
    assert (dry_run.value, dry_run.schema["const"]) == (True, True)
    assert "changes nothing" in (dry_run.description or "")


@every_dag
def test_pools_are_declared(dags: dict[str, DAG], dag_id: str) -> None:
    """A task in a pool that nobody makes never starts."""
    assert {task.pool for task in dags[dag_id].tasks} <= {"default_pool", *Pool}


def test_telling_is_no_part_of_watching(dags: dict[str, DAG]) -> None:
    """`tell` runs after a failed watch too, and its own failure does not make the run fail."""
    tell = dags["streams_watch"].get_task("tell")
    assert tell.is_teardown and not tell.on_failure_fail_dagrun
    assert tell.upstream_task_ids == {"watch"}
