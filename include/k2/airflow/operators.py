"""The tasks of the platform's DAGs. Each is a thin shell: what it does is in a module that only the running task imports.

They are classes and not decorated functions, because importing `airflow.sdk.task` alone takes most of the time that a
DAG file may take.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

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
        self.log.info("To be told: %s", "; ".join(f"incident {incident['id']} {what}" for incident, what in untold))


class TellPeople(BaseOperator):
    """Sends untold incidents to Slack. What Slack does not take stays untold for the next run."""

    ui_color = "#fde8c8"

    def execute(self, context: Any) -> list[dict[str, Any]]:
        from dataclasses import asdict

        from k2.airflow import slack
        from k2.registry.runtime import load_runtime

        done = slack.tell(load_runtime())
        for message in done:
            self.log.info("Incident %s %r: %s", message.incident, message.title, message.what)
        if failed := [message for message in done if not message.ok]:
            raise slack.SlackRefused("; ".join(f"incident {m.incident}: {m.what}" for m in failed))
        return [asdict(message) for message in done]


class RecordWish(BaseOperator):
    """Writes down what a person wants of streams, with the reason and the person's name, and wakes the watchdog by its outlet."""

    ui_color = "#d6e9f8"

    def execute(self, context: Any) -> dict[str, Any]:
        from k2.airflow import control
        from k2.registry.runtime import load_runtime

        runtime, params = load_runtime(), context["params"]
        wish = control.Wish(params["action"])
        who = context["dag_run"].triggering_user_name or "unknown"
        wants = control.record(runtime, control.select(params["stream"], runtime.platform), wish, who=who, reason=params["reason"])
        self.log.info("%s wants: %s %s, because: %s. Generations: %s", who, wish, ", ".join(wants), params["reason"], wants)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"who": who, "action": str(wish), "streams": list(wants)}
        return {"desired": wish.desired, "wants": wants}


class ReachWish(BaseOperator):
    """Waits in the triggerer, without a worker slot, until every stream is as wanted; fails at the deadline and says which is not."""

    ui_color = "#d6e9f8"

    def __init__(self, *, record_task_id: str, seconds: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_task_id = record_task_id
        self.seconds = seconds

    def execute(self, context: Any) -> None:
        from k2.airflow.triggers import WantedReachedTrigger

        wish = context["ti"].xcom_pull(task_ids=self.record_task_id)
        deadline = datetime.now(UTC) + timedelta(seconds=self.seconds)
        self.defer(
            trigger=WantedReachedTrigger(desired=wish["desired"], wants=wish["wants"], deadline=deadline.isoformat()),
            method_name="conclude",
            timeout=timedelta(seconds=self.seconds + 60),
        )

    def conclude(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Raises AirflowFailException when a stream is not as wanted: waiting again would not be what the person asked for."""
        for stream in event["reached"]:
            self.log.info("%s is as wanted", stream)
        if event["missing"]:
            lines = "\n".join(f"  {stream}: {because}" for stream, because in event["missing"].items())
            raise AirflowFailException(
                f"Not as wanted after {self.seconds:g} s:\n{lines}\n"
                "The wish stays recorded and the watchdog goes on; the last run of streams_watch says what it did."
            )
        return event


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
