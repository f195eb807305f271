"""The tasks of the platform's DAGs. Each is a thin shell: what it does is in a module that only the running task imports.

They are classes and not decorated functions, because importing `airflow.sdk.task` alone takes most of the time that a
DAG file may take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import DownstreamTasksSkipped

SUMMARY_KEY = "summary"


class WatchStreams(BaseOperator):
    """Looks at every stream, decides, acts, and skips what follows it when there is nobody to tell anything."""

    ui_color = "#d6e9f8"

    def execute(self, context: Any) -> None:
        from k2.airflow import watch
        from k2.alerts.waiting import waiting
        from k2.registry.runtime import load_runtime

        runtime = load_runtime()
        woken = watch.woken_by(context)
        result = watch.look_and_act(runtime)
        self.log.info("%s\n%s", woken, watch.table(result))
        context["ti"].xcom_push(SUMMARY_KEY, watch.summary(result))
        if failures := result.failures():
            raise watch.ActionFailed("; ".join(f"{f.action} of {f.stream}: {f.detail}" for f in failures))
        untold = waiting(runtime)
        if not untold:
            raise DownstreamTasksSkipped(tasks=sorted(self.downstream_task_ids))
        self.log.info(
            "To be told: %s",
            "; ".join([*(f"digest of window {window.id}" for window, _ in untold.digests), *(f"incident {i['id']} {what}" for i, what in untold.incidents)]),
        )


class TellPeople(BaseOperator):
    """Sends untold incidents to Slack. What Slack does not take stays untold for the next run."""

    ui_color = "#fde8c8"

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from dataclasses import asdict

        from k2.airflow import slack
        from k2.registry.runtime import load_runtime

        done = slack.tell(load_runtime())
        for message in done:
            self.log.info("%s %r: %s", f"Incident {message.incident}" if message.incident else "Window", message.title, message.what)
        if failed := [message for message in done if not message.ok]:
            raise slack.SlackRefused("; ".join(f"{m.title}: {m.what}" for m in failed))
        return [asdict(message) for message in done]


class SetWindow(BaseOperator):
    """Opens or closes a maintenance window, in which people are not told of incidents at once."""

    ui_color = "#fde8c8"

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from k2.airflow import windows
        from k2.registry.runtime import load_runtime

        done = windows.set_window(load_runtime(), dict(context["params"]), who=context["dag_run"].triggering_user_name or "unknown", request=context["run_id"])
        for window in done:
            self.log.info("Window of %s from %s until %s", window.scope, window.starts_at, window.ends_at)
        return [{"scope": w.scope, "starts_at": w.starts_at.isoformat(), "ends_at": w.ends_at.isoformat()} for w in done]


class Report(BaseOperator):
    """Runs one report of k2.airflow.reports, logs it as Markdown, keeps it as the task's result and its summary on the outlets.

    `report` is the function's name; it takes the runtime and the run's params and returns a k2.airflow.reports.Written.
    """

    ui_color = "#dff3df"
    template_fields: Sequence[str] = ()

    def __init__(self, *, report: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report = report

    def execute(self, context: Any) -> dict[str, Any]:
        from k2.airflow import reports
        from k2.registry.runtime import load_runtime

        written = getattr(reports, self.report)(load_runtime(), dict(context["params"]))
        self.log.info("\n%s", written.markdown)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = written.summary
        return written.result | {"markdown": written.markdown}
