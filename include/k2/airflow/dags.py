"""What every DAG of the platform has in common: owner, tags, time limits, callbacks, pools.

A DAG file imports this module at parse time, so nothing here may import a client library at its top.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from airflow.sdk import DAG

from k2.airflow.callbacks import run_failed, task_failed, task_succeeded

OWNER = "data-platform"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Tag(StrEnum):
    """The closed vocabulary of DAG tags: what a DAG is about, and what it may do."""

    STREAMS = "streams"
    CHECKPOINTS = "checkpoints"
    TABLES = "tables"
    HEALTH = "health"
    ACTS = "acts"
    """It starts, stops or changes something."""
    READS = "reads"
    """It examines and reports, and changes nothing."""
    MANUAL = "manual"
    """A person starts it, through its form."""


class Pool(StrEnum):
    """Pools that `python -m k2.airflow.setup` creates; their sizes are there."""

    READERS = "k2_readers"
    """Reports hold whole tables' metadata in memory, so no two of them run at once."""


def platform_dag(
    dag_id: str,
    *,
    runbook: str | None,
    description: str,
    tags: Iterable[Tag],
    dagrun_timeout: timedelta,
    task_timeout: timedelta,
    schedule: Any = None,
    params: dict[str, Any] | None = None,
    max_active_runs: int = 1,
    retries: int = 0,
    retry_delay: timedelta = timedelta(seconds=30),
    **more: Any,
) -> DAG:
    """A DAG with the platform's defaults. `runbook` is the DAG file's own docstring and is shown as its documentation.

    `task_timeout` bounds one attempt of one task, `dagrun_timeout` the run with all its attempts and its wait for a slot.
    """
    if not runbook:
        raise ValueError(f"{dag_id}: pass runbook=__doc__, and write the runbook as the docstring of the DAG file")
    return DAG(
        dag_id,
        description=description,
        doc_md=runbook.strip(),
        schedule=schedule,
        start_date=START,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=max_active_runs,
        dagrun_timeout=dagrun_timeout,
        tags=sorted(tags),
        params=params,
        on_failure_callback=run_failed,
        default_args={
            "owner": OWNER,
            "execution_timeout": task_timeout,
            "retries": retries,
            "retry_delay": retry_delay,
            "on_failure_callback": task_failed,
            "on_success_callback": task_succeeded,
        },
        **more,
    )
