"""The tasks of checkpoints_backup: choose, back up, report."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator

from k2.airflow.pruning_tasks import pulled


class ChooseStreams(BaseOperator):
    """Names the streams whose checkpoints are backed up."""

    ui_color = "#dff3df"

    def execute(self, context: Any) -> list[str]:
        from k2.airflow import backing
        from k2.registry.runtime import load_runtime

        return backing.chosen(load_runtime(), context["params"]["stream"])


class BackUp(BaseOperator):
    """Copies where the query of one checkpoint stands, while it runs. Mapped over the streams."""

    ui_color = "#d6e9f8"

    def __init__(self, *, stream: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream = stream

    def execute(self, context: Any) -> dict[str, Any]:
        from k2.airflow import backing
        from k2.registry.runtime import load_runtime

        run = context["dag_run"]
        why = "monthly" if run.run_type == "scheduled" else "by hand"
        done = backing.back_up(load_runtime(), self.stream, who=run.triggering_user_name or "checkpoints_backup", why=why)
        self.log.info("%s: %s", self.stream, done["entry"] or done["why"])
        return done


class ReportBackups(BaseOperator):
    """Tells which backups there are now, and which failed."""

    ui_color = "#dff3df"

    def __init__(self, *, choose_task_id: str, back_up_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choose_task_id = choose_task_id
        self.back_up_task_id = back_up_task_id

    def execute(self, context: Any) -> dict[str, Any]:
        from k2.airflow import backing
        from k2.registry.runtime import load_runtime

        streams = context["ti"].xcom_pull(task_ids=self.choose_task_id)
        if streams is None:
            raise backing.BackupFailed("there is no backup at all, because choose failed: see its log")
        written = backing.report(load_runtime(), streams, pulled(context, self.back_up_task_id))
        self.log.info("\n%s", written.markdown)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = written.summary
        result = written.result | {"markdown": written.markdown}
        if failed := written.summary["failed"]:
            context["ti"].xcom_push("return_value", result)
            raise backing.BackupFailed(f"no backup of {', '.join(failed)}: see the log of each in back_up")
        return result
