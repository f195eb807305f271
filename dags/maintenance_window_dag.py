"""
# maintenance_window

## What it does
Opens or closes a maintenance window of one stream, a layer or all streams. While it is open, people are not told of incidents
of those streams one by one. **It mutes and never blinds**: the watchdog looks, judges, records, restarts and holds exactly as
ever, and `./k2 status` shows the incidents and the window.

When the window ends, one digest says what happened during it and what is still open; **a page that is still open pages then**.
What people were told of before the window is followed to its end at once. Incidents of the supervision itself, such as a
failing `streams_watch`, are never muted. A window always ends: the longest is `control.window_hours` in `platform.yaml`.

* **open** from `starts` (empty: now) for `hours`.
* **close** ends the open windows of exactly this choice now, and cancels those to come.

## When it runs
Only when a person triggers it. The reason is required; the audit log and the digest carry it with your name.

## What a failure means
The request made no sense, or the database did not answer. No window was opened or closed, and people are told as before.

## Can it wait until morning
Yes: without a window people are told more, not less.

## What to do next
1. The error names the field, its value and what to write instead.
2. `./k2 status` lists the windows that are open or to come.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.utils.types import DagRunType

from k2.airflow import forms
from k2.airflow.dags import Tag, platform_dag
from k2.airflow.operators import SetWindow

with platform_dag(
    "maintenance_window",
    runbook=__doc__,
    description="Opens or closes a time in which people are told of incidents in one digest at its end; nothing else changes",
    tags={Tag.STREAMS, Tag.ACTS, Tag.MANUAL},
    params={
        "action": forms.window_action(),
        "stream": forms.stream_choice(),
        "starts": forms.moment("Starts", "Empty: now. Otherwise the beginning, within the next month."),
        "hours": forms.limit(1.0, "Hours", "How long it lasts; control.window_hours in platform.yaml is the most.", minimum=0.1),
        "reason": forms.reason(),
    },
    dagrun_timeout=timedelta(minutes=15),
    task_timeout=timedelta(minutes=1),
    allowed_run_types={DagRunType.MANUAL},
):
    SetWindow(task_id="set")
