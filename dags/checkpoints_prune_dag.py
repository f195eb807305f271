"""
# checkpoints_prune

## What it does
Examines every checkpoint, those of the declared streams and any other folder beside them, says what is wrong with each, and
takes out what crashed writes have left: `discover` → `examine` (one for each, writes a plan: a file that names what could
go, and why) → `ask` (only when it is too much to be normal) → `take_away` (under the checkpoint's lock) → `report`.

A checkpoint is one unit. Inside a live one only leftovers of crashed writes ever go: temporary files of Spark's that are older
than 24 hours and than three of the longest batches, and checksums of files that are gone. `metadata`, `offsets`, `commits`,
`sources` and `state` never do, whatever their age: without them a stream silently loses or doubles data. Nothing is taken out
of a checkpoint that is damaged, or of which something cannot be known.

What goes lies in the quarantine beside the checkpoints for `checkpoints.quarantine_days` and is deleted after that. Until
then it can be put back. One run takes `checkpoints.prune_files` out of one checkpoint at most; the rest waits for the next night.

## When it runs
Every night at 02:30 UTC, or by hand. By hand it is a dry run unless the form says otherwise: it plans and tells, and changes nothing
in the checkpoints and the quarantine.

## What a failure means
`discover` failed: the folder of the checkpoints cannot be listed. `examine` or `take_away` of one checkpoint failed: its log says
why; the others go on, and `report` fails for it at the end. "was healthy and is damaged": something happened to the checkpoint
while leftovers were taken out of it. No stream is stopped by any of it.

A damaged checkpoint of a stream is a page; one of a folder that no stream claims, and one that is about to break, is a ticket. They
are resolved by the next run that finds it well.

## Can it wait until morning
Yes. A damaged checkpoint cannot: its stream goes on, and its next start may lose or double records, or fail.

## What to do next
1. Read the report: the log of `report`, or its result under XCom. `./k2 checkpoints doctor` looks anew.
2. Damaged: do what the finding says, before the stream is started again.
3. Unclaimed folders: find out whose they were. Do not delete them by hand.
4. Asked whether so many files may go: find out first why there are so many. Drivers that crash often leave some, not thousands.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable

from k2.airflow import forms
from k2.airflow.assets import report_asset
from k2.airflow.dags import Tag, platform_dag
from k2.airflow.pruning_tasks import AskForMany, DiscoverCheckpoints, ExamineCheckpoint, ReportCheckpoints, TakeAway

with platform_dag(
    "checkpoints_prune",
    runbook=__doc__,
    description="Examines every checkpoint, takes away what crashed writes have left in it, and says what is wrong",
    tags={Tag.CHECKPOINTS, Tag.ACTS},
    schedule=CronTriggerTimetable("30 2 * * *", timezone="UTC"),
    params={"dry_run": forms.prune_dry_run()},
    dagrun_timeout=timedelta(hours=4),
    task_timeout=timedelta(minutes=20),
    # Each part can be done again: what was taken away is gone already.
    retries=2,
):
    discover = DiscoverCheckpoints(task_id="discover")
    examine = ExamineCheckpoint.partial(task_id="examine").expand(folder=discover.output)
    # An answer within the same second finds the worker process still leaving, and Airflow fails the task for it: it asks again.
    ask = AskForMany(task_id="ask", examine_task_id="examine", execution_timeout=timedelta(minutes=65), retries=2, retry_delay=timedelta(seconds=2))
    take_away = TakeAway.partial(task_id="take_away", ask_task_id="ask", trigger_rule="all_done").expand(planned=examine.output)
    report = ReportCheckpoints(
        task_id="report", discover_task_id="discover", take_task_id="take_away", outlets=[report_asset("checkpoints")], trigger_rule="all_done"
    )
    discover >> examine >> ask >> take_away >> report
