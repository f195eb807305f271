"""Incidents of the DAGs themselves."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from k2.airflow import callbacks
from k2.airflow.control import RequestRefused


@pytest.fixture
def incidents(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was opened (key, severity, title, detail) and resolved (key, resolution), in order."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr("k2.registry.runtime.load_runtime", lambda: None)
    monkeypatch.setattr("k2.state.database.connect", lambda runtime, role: nullcontext())
    monkeypatch.setattr("k2.state.incidents.open_incident", lambda connection, *rest: calls.append(("open", *rest)))
    monkeypatch.setattr("k2.state.incidents.resolve_incident", lambda connection, *rest: calls.append(("resolve", *rest)))
    return calls


def task_context(dag_id: str, task_id: str, **more: Any) -> dict[str, Any]:
    return {"ti": SimpleNamespace(dag_id=dag_id, task_id=task_id, run_id="manual__1")} | more


@pytest.mark.parametrize(
    ("dag_id", "task_id", "severity"),
    [("streams_watch", "watch", "page"), ("streams_watch", "tell", "ticket"), ("streams_control", "reach", "digest"), ("platform_health", "examine", "ticket")],
)
def test_failed_task_opens_its_incident(incidents: list[tuple[str, ...]], dag_id: str, task_id: str, severity: str) -> None:
    """The key names DAG and task, so that a later success finds it; only a blind watchdog pages."""
    callbacks.task_failed(task_context(dag_id, task_id, exception=ValueError("no such table")))
    ((verb, key, found, title, detail),) = incidents
    assert (verb, key, found) == ("open", f"dag:{dag_id}:{task_id}", severity)
    assert dag_id in title and "ValueError: no such table" in detail and "What to do: " in detail


def test_a_refused_request_is_no_incident(incidents: list[tuple[str, ...]]) -> None:
    """Whoever filled in the form reads the answer; nobody else has to know."""
    callbacks.task_failed(task_context("streams_control", "check", exception=RequestRefused("stream: 'gold' names no stream")))
    assert incidents == []


def test_task_that_vanished_has_no_exception(incidents: list[tuple[str, ...]]) -> None:
    """A killed process leaves no word, and the incident says so."""
    callbacks.task_failed(task_context("streams_watch", "watch"))
    assert "without a word" in incidents[0][4]


def test_succeeded_task_resolves_its_own_and_the_run_s(incidents: list[tuple[str, ...]]) -> None:
    """One success of a task ends what its failure, or a run's, has opened."""
    callbacks.task_succeeded(task_context("streams_watch", "watch"))
    assert [(verb, key) for verb, key, _ in incidents] == [("resolve", "dag:streams_watch:watch"), ("resolve", "dag:streams_watch")]


@pytest.mark.parametrize(("reason", "opened"), [("timed_out", True), ("all_tasks_deadlocked", True), ("task_failure", False)])
def test_run_opens_only_what_no_task_has(incidents: list[tuple[str, ...]], reason: str, opened: bool) -> None:
    """A run that failed through a task has its incident already."""
    callbacks.run_failed({"dag": SimpleNamespace(dag_id="platform_health"), "run_id": "scheduled__1", "reason": reason})
    assert [call[1] for call in incidents] == (["dag:platform_health"] if opened else [])


def test_instances_of_a_mapped_task_say_nothing(incidents: list[tuple[str, ...]]) -> None:
    """The success of one would resolve the failure of another; whatever gathers them fails for all."""
    for index, expected in ((3, 0), (0, 0), (-1, 3), (None, 6)):
        context = task_context("checkpoints_prune", "take_away", exception=ValueError("it broke"))
        context["ti"].map_index = index
        callbacks.task_failed(context)
        callbacks.task_succeeded(context)
        assert len(incidents) == expected
