"""A small client of Airflow's REST API and of the Slack stand-in, on the stack that the whole run shares."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import pytest

from k2.registry.runtime import Runtime
from k2.stack import airflow

T = TypeVar("T")


def wait_for(what: str, ask: Callable[[], T | None], seconds: float) -> T:
    """The first answer that is not None or False. Fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := ask():
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:g} s: no {what}")
        time.sleep(0.25)


class Airflow:
    """Airflow as a person with a login reaches it."""

    def __init__(self, runtime: Runtime) -> None:
        password = (runtime.secrets / "airflow_admin").read_text()
        token = httpx.post(f"{runtime.airflow}/auth/token", json={"username": airflow.LOGIN, "password": password}).json()["access_token"]
        self.http = httpx.Client(base_url=runtime.airflow, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self.http.get(f"/api/v2/{path}", params=query).raise_for_status().json()

    def trigger(self, dag_id: str, **conf: Any) -> httpx.Response:
        return self.http.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})

    def finished(self, dag_id: str, run_id: str, seconds: float) -> str:
        """The state in which a run ends."""
        path = f"dags/{dag_id}/dagRuns/{run_id}"
        return wait_for(f"end of {run_id}", lambda: state if (state := self.get(path)["state"]) in ("success", "failed") else None, seconds)

    def log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """All that a task's first attempt has logged."""
        answer = self.http.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1", headers={"Accept": "application/json"})
        return answer.raise_for_status().text.replace("\\n", "\n")

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        return self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value", deserialize=True)["value"]


@pytest.fixture(scope="session")
def ui(platform_stack: Runtime) -> Airflow:
    return Airflow(platform_stack)


@pytest.fixture
def slack(platform_stack: Runtime) -> Callable[[], list[dict[str, Any]]]:
    """What the Slack stand-in has received, oldest first."""
    return lambda: httpx.get(f"{platform_stack.slack_api}/messages").raise_for_status().json()
