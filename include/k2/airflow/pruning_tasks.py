"""The tasks of checkpoints_prune: discover, examine, ask when it is too much, take away, report."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator

APPROVED_BY = "approved_by"


def acts(context: Any) -> bool:
    """Whether the run may change something: the nightly one does, one by hand only when its form says so."""
    return context["dag_run"].run_type == "scheduled" or not context["params"]["dry_run"]


def pulled(context: Any, task_id: str) -> list[Any]:
    """The results of a mapped task's instances, those that failed left out. Asked for by its name alone, one result would not be a list."""
    return [found for found in context["ti"].xcom_pull(task_ids=[task_id]) or [] if found is not None]


class DiscoverCheckpoints(BaseOperator):
    """Lists every folder that may be a checkpoint."""

    ui_color = "#dff3df"

    def execute(self, context: Any) -> list[str]:
        from k2.airflow import pruning
        from k2.registry.runtime import load_runtime

        return pruning.discover(load_runtime())


class ExamineCheckpoint(BaseOperator):
    """Examines one checkpoint and writes the plan of what could go. Mapped over the checkpoints."""

    ui_color = "#dff3df"

    def __init__(self, *, folder: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.folder = folder

    def execute(self, context: Any) -> dict[str, Any]:
        from k2.airflow import pruning
        from k2.registry.runtime import load_runtime

        found = pruning.examine(load_runtime(), self.folder, context["run_id"])
        plan = found["plan"]
        self.log.info("%s is %s; %s", self.folder, found["health"], f"{plan['files']:,} files could go, see {plan['file']}" if plan else "there is no plan")
        return found


class AskForMany(ApprovalOperator):
    """Asks a person when a plan would take more than is normal. Any other run passes. No answer in time is a no: those plans are left."""

    def __init__(self, *, examine_task_id: str, **kwargs: Any) -> None:
        super().__init__(subject="More leftovers than is normal", defaults=self.REJECT, fail_on_reject=False, response_timeout=timedelta(minutes=30), **kwargs)
        self.examine_task_id = examine_task_id

    def execute(self, context: Any) -> Any:
        from k2.airflow import pruning
        from k2.registry.runtime import load_runtime

        many = pruning.unusual(pulled(context, self.examine_task_id))
        if not many or not acts(context):
            self.log.info("No approval is needed.")
            return {"needed": False}
        self.response_timeout = timedelta(minutes=load_runtime().platform.control.approval_minutes)
        lines = "\n".join(f"* {line}" for line in many)
        self.body = f"{lines}\n\nSomething else may be wrong. They go into the quarantine and can go back. No answer is a no: they stay."
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        by = event.get("responded_by_user")
        if event.get("chosen_options") == [self.APPROVE]:
            context["ti"].xcom_push(APPROVED_BY, str(by["name"]) if by else "unknown")
        else:
            self.log.warning("Not approved: what is too much stays.")
        return event.get("chosen_options")


class TakeAway(BaseOperator):
    """Carries out one plan, under the checkpoint's lock. Mapped over what was examined."""

    ui_color = "#d6e9f8"

    def __init__(self, *, planned: Any = None, ask_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.planned = planned
        self.ask_task_id = ask_task_id

    def execute(self, context: Any) -> dict[str, Any]:
        from k2.airflow import pruning
        from k2.registry.runtime import load_runtime

        planned, by = self.planned, context["ti"].xcom_pull(task_ids=self.ask_task_id, key=APPROVED_BY)
        if not acts(context):
            return pruning.would_take(planned)
        who = by or context["dag_run"].triggering_user_name or "checkpoints_prune"
        done = pruning.take_away(load_runtime(), planned, who=who, approved=by is not None)
        self.log.info("%s: %s files taken away into %s; %s", done["folder"], done["files"], done["entry"], done.get("why") or done["stayed"])
        return done


class ReportCheckpoints(BaseOperator):
    """Deletes what has lain in the quarantine for its time, examines all checkpoints again, and tells what was found and done."""

    ui_color = "#dff3df"

    def __init__(self, *, discover_task_id: str, take_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.discover_task_id = discover_task_id
        self.take_task_id = take_task_id

    def execute(self, context: Any) -> dict[str, Any]:
        from k2.airflow import pruning
        from k2.registry.runtime import load_runtime

        done = pulled(context, self.take_task_id)
        written = pruning.report(load_runtime(), done, dry_run=not acts(context))
        self.log.info("\n%s", written.markdown)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = written.summary
        result = written.result | {"markdown": written.markdown}
        if wrong := pruning.incomplete(context["ti"].xcom_pull(task_ids=self.discover_task_id), done):
            context["ti"].xcom_push("return_value", result)
            raise pruning.PruneFailed(wrong)
        return result
