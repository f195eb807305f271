"""The answer to a question, as Airflow hands it to the task."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped

from k2.airflow import control
from k2.airflow.requests import APPROVED_BY, NOBODY, AskApproval
from k2.state.database import StateUnavailable

AT = datetime(2026, 11, 21, tzinfo=UTC)


class Answered:
    """One answer to the question whether Silver may be stopped, and what the task leaves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, away: bool = False) -> None:
        self.pushed: dict[str, Any] = {}
        self.noted: list[Any] = []

        def conclude(runtime: object, request: control.Request, outcomes: dict[str, tuple[str, str]], *, decided_by: str) -> None:
            if away:
                raise StateUnavailable("PostgreSQL did not answer")
            self.noted.append((request.who, outcomes, decided_by))

        monkeypatch.setattr("k2.registry.runtime.load_runtime", lambda: None)
        monkeypatch.setattr(control, "conclude", conclude)

    def __call__(self, option: str, by: str | None) -> Any:
        from airflow.sdk import DAG, BaseOperator

        with DAG("requests", schedule=None):
            task = AskApproval(task_id="approve", check_task_id="check")
            task >> BaseOperator(task_id="record")
        ti = SimpleNamespace(
            map_index=-1,
            xcom_pull=lambda task_ids: {"streams": ["silver_kraken"], "risky": True},
            xcom_push=lambda key, value: self.pushed.update({key: value}),
        )
        context = {
            "ti": ti,
            "task": task,
            "params": {"action": "stop", "stream": "silver", "reason": "moving the broker"},
            "dag_run": SimpleNamespace(triggering_user_name="ann", run_id="run 1"),
        }
        user = {"id": by, "name": by} if by else None
        return task.execute_complete(context, {"chosen_options": [option], "params_input": {}, "responded_at": AT, "responded_by_user": user})  # type: ignore[arg-type]


def test_a_yes_names_who_said_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next tasks go on, with the name."""
    answered = Answered(monkeypatch)
    assert answered("Approve", "bob") == {"needed": True, "approved": True, "by": "bob"}
    assert answered.pushed == {APPROVED_BY: "bob"} and answered.noted == []


@pytest.mark.parametrize(("by", "decided_by", "words"), [("bob", "bob", "rejected by bob: nothing was changed"), (None, NOBODY, "nobody approved it in time")])
def test_a_no_is_noted_and_skips_what_follows(monkeypatch: pytest.MonkeyPatch, by: str | None, decided_by: str, words: str) -> None:
    """The audit log has it before the task ends, and no approval is left behind."""
    answered = Answered(monkeypatch)
    with pytest.raises(DownstreamTasksSkipped):
        answered("Reject", by)
    ((who, outcomes, found),) = answered.noted
    assert (who, found, outcomes["silver_kraken"][0]) == ("ann", decided_by, "rejected") and words in outcomes["silver_kraken"][1]
    assert APPROVED_BY not in answered.pushed and words in answered.pushed["outcome"]


def test_a_no_without_a_database_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows is skipped all the same."""
    answered = Answered(monkeypatch, away=True)
    with pytest.raises(DownstreamTasksSkipped):
        answered("Reject", "bob")
    assert APPROVED_BY not in answered.pushed
