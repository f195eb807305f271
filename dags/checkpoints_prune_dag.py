"""
# checkpoints_prune

## What it does
Examines every checkpoint, those of the declared streams and any other folder beside them: which query it belongs to, how
many batches it keeps, how large it is, what is wrong with it, and what could go and why. **It changes nothing yet.**

A checkpoint is one unit. Inside a live one only leftovers of crashed writes may ever go (temporary files older than
24 h); `metadata`, `offsets`, `commits` and `sources` never, whatever their age: without them a stream silently loses or
doubles data. Whole checkpoints may go only after their query was retired on purpose.

## When it runs
Every night at 02:30 UTC, or by hand.

## What a failure means
The folder of the checkpoints could not be read, or the report itself is broken. No stream is affected. One checkpoint that
cannot be read does not fail the run: the report says so under **Wrong**.

## Can it wait until morning
Yes. A line under **Wrong** that says a query cannot restart, or would mint a new id, should be read before that stream is
restarted next.

## What to do next
1. Read the report in the log of `examine`, or as its result under XCom.
2. Unclaimed folders: find out whose they were. Do not delete them by hand.
3. Leftovers: harmless. Many of them mean that drivers crash often: see the incidents.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable

from k2.airflow.assets import report_asset
from k2.airflow.dags import Pool, Tag, platform_dag
from k2.airflow.operators import Report

with platform_dag(
    "checkpoints_prune",
    runbook=__doc__,
    description="Examines every checkpoint and reports what is wrong and what could go; changes nothing yet",
    tags={Tag.CHECKPOINTS, Tag.READS},
    schedule=CronTriggerTimetable("30 2 * * *", timezone="UTC"),
    dagrun_timeout=timedelta(hours=2),
    task_timeout=timedelta(minutes=20),
    retries=1,
):
    Report(task_id="examine", report="checkpoints_prune", pool=Pool.READERS, outlets=[report_asset("checkpoints")])
