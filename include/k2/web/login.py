"""Who may see the pages: whoever Airflow lets see the DAG that watches the streams."""

from __future__ import annotations

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import FastAPI

from k2.web.app import create


def streams_app() -> FastAPI:
    """The application behind Airflow's login: 401 without one, 403 for a user who may not read streams_watch."""
    return create(requires_access_dag(method="GET", param_dag_id="streams_watch"))
