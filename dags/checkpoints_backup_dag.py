"""
# checkpoints_backup

## What it does
Copies where the query of each stream stands, out of its checkpoint and while the stream runs: `choose` → `back_up` (one for each, under
the checkpoint's lock) → `report`. A copy has the identity, the sources, the last two batches and the plan of the one in
flight, some kilobytes, which is all that a stateless query needs. Each is read again and compared with its manifest before it
counts; then the oldest go, so that `checkpoints.backups` of platform.yaml are kept of each.

A checkpoint with state is left out, and one of a stream that has committed nothing yet. One that is gone fails. No stream is stopped or touched.

A backup goes back by `streams_control` with `restore` and its name in the field `checkpoint`, and only while the stream's table stands where
the backup does. For any other time there is `rebuild`, which needs no backup: a backup is the quicker way back of a stream that was stopped when it was made.

## When it runs
On the first of each month at 03:00 UTC for all streams, or by hand for those that the form names: before work on the disk, for
example.

## What a failure means
`back_up` of one stream failed: it has no backup of now, its log says why, and the older ones are still there; the others go on, and
`report` fails for it at the end.
*could not be copied in 3 attempts*: Spark removed files while they were read; run it again. *is under way*: a start or another
action held the checkpoint; run it again. *has no batch committed*: the stream has not committed yet. Anything else: `./k2
checkpoints doctor` says what is wrong with the checkpoint.

## Can it wait until morning
Yes.

## What to do next
1. Read the report: the log of `report`, or its result under XCom.
2. Run it by hand for the stream that failed, once its cause is gone.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable

from k2.airflow import forms
from k2.airflow.assets import report_asset
from k2.airflow.backing_tasks import BackUp, ChooseStreams, ReportBackups
from k2.airflow.dags import Tag, platform_dag

with platform_dag(
    "checkpoints_backup",
    runbook=__doc__,
    description="Copies where each stream stands out of its checkpoint, proves the copy, and keeps the newest few of each",
    tags={Tag.CHECKPOINTS, Tag.ACTS},
    schedule=CronTriggerTimetable("0 3 1 * *", timezone="UTC"),
    params={"stream": forms.stream_choice("all")},
    dagrun_timeout=timedelta(hours=1),
    task_timeout=timedelta(minutes=10),
):
    choose = ChooseStreams(task_id="choose")
    back_up = BackUp.partial(task_id="back_up").expand(stream=choose.output)
    report = ReportBackups(task_id="report", choose_task_id="choose", back_up_task_id="back_up", outlets=[report_asset("backups")], trigger_rule="all_done")
    choose >> back_up >> report
