"""What Airflow calls when a task or a run of the platform's DAGs ends: an incident is opened or resolved.

People are told by the next run of `streams_watch`. A callback that fails is only logged by Airflow and changes no state.
"""

from __future__ import annotations

from typing import Any

SEVERITY = {"dag:streams_watch": "page", "dag:streams_watch:watch": "page", "dag:streams_control:reach": "digest"}
"""Nobody restarts a stream while `streams_watch` fails; whoever starts `streams_control` sees it fail. Others are tickets."""


def run_key(dag_id: str) -> str:
    return f"dag:{dag_id}"


def task_key(dag_id: str, task_id: str) -> str:
    return f"dag:{dag_id}:{task_id}"


def task_failed(context: Any) -> None:
    """Open the incident of a task that failed for good."""
    from k2.airflow.control import RequestRefused

    ti = context["ti"]
    error = context.get("exception")
    if isinstance(error, RequestRefused):
        return  # whoever asked reads the answer, and nothing is broken
    if _is_mapped(ti):
        return  # its success would resolve another one's failure: whatever gathers them fails for all of them
    what = f"{type(error).__name__}: {error}" if error is not None else "its process went away without a word"
    _open(task_key(ti.dag_id, ti.task_id), f"DAG {ti.dag_id}: task {ti.task_id} failed", f"Run {ti.run_id}: {what}")


def run_failed(context: Any) -> None:
    """Open the incident of a run that ended without any task's failing, as when it ran out of time waiting for a slot.

    A failed task has opened its own incident already.
    """
    reason = context.get("reason")
    if reason != "task_failure":
        dag_id = context["dag"].dag_id
        _open(run_key(dag_id), f"DAG {dag_id}: a run did not come through", f"Run {context['run_id']} ended with: {reason}.")


def task_succeeded(context: Any) -> None:
    """Resolve what an earlier failure of this task, or of a whole run, has opened."""
    from k2.registry.runtime import load_runtime
    from k2.state.database import connect
    from k2.state.incidents import resolve_incident

    ti = context["ti"]
    if _is_mapped(ti):
        return
    with connect(load_runtime(), "control") as connection:
        resolve_incident(connection, task_key(ti.dag_id, ti.task_id), f"Run {ti.run_id} succeeded.")
        resolve_incident(connection, run_key(ti.dag_id), f"Run {ti.run_id} came through.")


def _is_mapped(ti: Any) -> bool:
    """Whether it is one of several instances of its task."""
    index = getattr(ti, "map_index", None)
    return index is not None and index >= 0


def _open(key: str, title: str, what: str) -> None:
    from k2.registry.runtime import load_runtime
    from k2.state.database import connect
    from k2.state.incidents import open_incident

    detail = f"{what}\nWhat to do: open the run in Airflow, read the task's log, and follow the DAG's documentation."
    with connect(load_runtime(), "control") as connection:
        open_incident(connection, key, SEVERITY.get(key, "ticket"), title, detail)
