"""The tasks of streams_control: check what a person asks for, have it approved, prove it, record it, wait until it is so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

APPROVED_BY = "approved_by"
NOBODY = "nobody, in time"


class CheckRequest(BaseOperator):
    """Refuses a request that makes no sense for the streams as they are, before anything is recorded of it."""

    ui_color = "#dff3df"

    def execute(self, context: Any) -> dict[str, Any]:
        from dataclasses import asdict

        from k2.airflow import control
        from k2.registry.runtime import load_runtime

        request = control.Request.of(context)
        checked = control.check(load_runtime(), request)
        needs = "needs an approval" if checked.risky else "needs no approval"
        self.log.info(
            "%s wants: %s of %s (%s), because: %s. It %s.", request.who, request.wish, request.choice, ", ".join(checked.streams), request.reason, needs
        )
        return asdict(checked)


class AskApproval(ApprovalOperator):
    """Asks a person to approve a risky request, and waits without a worker slot. Any other passes. No answer in time is a no.

    A no is an answer and no failure: it is recorded, and whatever comes after is skipped.
    """

    def __init__(self, *, check_task_id: str, **kwargs: Any) -> None:
        # The real limit is read when the task runs. Without one here Airflow would take the task's own time limit for it.
        super().__init__(
            subject="A request to approve", defaults=self.REJECT, ignore_downstream_trigger_rules=True, response_timeout=timedelta(minutes=30), **kwargs
        )
        self.check_task_id = check_task_id

    def execute(self, context: Any) -> Any:
        from k2.airflow import control
        from k2.registry.runtime import load_runtime

        checked = context["ti"].xcom_pull(task_ids=self.check_task_id)
        if not checked["risky"]:
            self.log.info("No approval is needed.")
            return {"needed": False}
        request = control.Request.of(context)
        minutes = load_runtime().platform.control.approval_minutes
        self.subject = f"{request.who} asks for {request}"
        self.body = checked["body"]
        self.response_timeout = timedelta(minutes=minutes)
        self.log.info("Waiting %s minutes for an approval, under Required Actions of this run:\n%s", minutes, self.body)
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        by = event.get("responded_by_user")
        who = str(by["name"]) if by else NOBODY
        if event.get("chosen_options") != [self.APPROVE]:
            self._note_rejection(context, who if by else None)
            return super().execute_complete(context, event)  # ends this task by skipping what follows it
        super().execute_complete(context, event)
        self.log.info("Approved by %s", who)
        context["ti"].xcom_push(APPROVED_BY, who)
        return {"needed": True, "approved": True, "by": who}

    def _note_rejection(self, context: Any, who: str | None) -> None:
        """Keep who said no in the audit log. A database that is away does not make it a yes: nothing was recorded before."""
        from k2.airflow import control
        from k2.registry.runtime import load_runtime
        from k2.state.database import StateUnavailable

        request, streams = control.Request.of(context), context["ti"].xcom_pull(task_ids=self.check_task_id)["streams"]
        because = f"rejected by {who}: nothing was changed" if who else "nobody approved it in time: nothing was changed"
        self.log.warning("%s: %s", request, because)
        context["ti"].xcom_push("outcome", because)
        try:
            control.conclude(load_runtime(), request, {stream: ("rejected", because) for stream in streams}, decided_by=who or NOBODY)
        except StateUnavailable as error:
            self.log.error("The audit log lacks this rejection: %s", error)


class ProveUpgrade(BaseOperator):
    """Before an upgrade, has the host agent try the code and configuration of now on a copy of each stream's checkpoint. Any other request passes."""

    ui_color = "#dff3df"

    def execute(self, context: Any) -> dict[str, Any]:
        from dataclasses import asdict

        from k2.airflow import control
        from k2.registry.runtime import load_runtime
        from k2.registry.wishes import Wish

        request = control.Request.of(context)
        if request.wish is not Wish.UPGRADE:
            self.log.info("Nothing has to be proven.")
            return {"needed": False}
        found = control.prove(load_runtime(), request)
        for shadow in found:
            self.log.info("%s fits its checkpoint, after %s s: %s", shadow.stream, shadow.seconds, shadow.because)
        return {"needed": True, "made_of": found[0].made_of, "shadows": [asdict(shadow) | {"outcome": str(shadow.outcome)} for shadow in found]}


class RecordWish(BaseOperator):
    """Writes down what a person wants of streams, with the reason and the names, and wakes the watchdog by its outlet."""

    ui_color = "#d6e9f8"

    def __init__(self, *, check_task_id: str, approve_task_id: str, prove_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_task_id = check_task_id
        self.approve_task_id = approve_task_id
        self.prove_task_id = prove_task_id

    def execute(self, context: Any) -> dict[str, Any]:
        from k2.airflow import control
        from k2.registry.runtime import load_runtime

        request = control.Request.of(context)
        approved_by = context["ti"].xcom_pull(task_ids=self.approve_task_id, key=APPROVED_BY)
        proof = context["ti"].xcom_pull(task_ids=self.prove_task_id) or {}
        since = datetime.now(UTC)
        shown = context["ti"].xcom_pull(task_ids=self.check_task_id)["loss"]
        wants = control.record(load_runtime(), request, approved_by=approved_by, proven=proof.get("made_of"), shown=shown)
        self.log.info("%s: %s, approved by: %s. Generations: %s", "Done" if request.wish.moves else "Recorded", request, approved_by or "nobody had to", wants)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"who": request.who, "action": str(request.wish), "streams": list(wants)}
        return {"desired": request.wish.desired, "wants": wants, "since": since.isoformat()}


class ReachWish(BaseOperator):
    """Waits in the triggerer, without a worker slot, until every stream is as wanted; fails at the deadline and says which is not."""

    ui_color = "#d6e9f8"

    def __init__(self, *, record_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_task_id = record_task_id

    def execute(self, context: Any) -> None:
        from k2.airflow.triggers import WantedReachedTrigger
        from k2.registry.runtime import load_runtime

        wish = context["ti"].xcom_pull(task_ids=self.record_task_id)
        within = timedelta(seconds=load_runtime().platform.control.reach_seconds)
        deadline = datetime.now(UTC) + within
        self.defer(
            trigger=WantedReachedTrigger(desired=wish["desired"], wants=wish["wants"], deadline=deadline.isoformat(), since=wish["since"]),
            method_name="conclude",
            timeout=within + timedelta(minutes=1),
        )

    def conclude(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Raises AirflowFailException when a stream is not as wanted: waiting again would not be what the person asked for."""
        from k2.airflow import control
        from k2.registry.runtime import load_runtime

        reached, missing = event["reached"], event["missing"]
        for stream, because in reached.items():
            self.log.info("%s is as wanted: %s", stream, because)
        outcomes = {stream: ("reached", because) for stream, because in reached.items()} | {stream: ("missed", because) for stream, because in missing.items()}
        control.conclude(load_runtime(), control.Request.of(context), outcomes)
        if missing:
            lines = "\n".join(f"  {stream}: {because}" for stream, because in missing.items())
            raise AirflowFailException(
                f"Not as wanted:\n{lines}\nThe wish stays recorded and the watchdog goes on; the last run of streams_watch says what it did."
            )
        return event
