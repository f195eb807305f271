"""
# iceberg_maintenance

## What it does
Examines every Iceberg table: snapshots and how many are past their time, data files and how many are too small, versions
of the metadata, files that no snapshot names. It says what could be expired and what holds the rest. **It changes nothing
yet**, and reads with a database role that could not.

A table with no more than `keep` snapshots is `skipped / below_minimum_<keep>`. Otherwise an unbroken beginning of the
history could go: older than `days`, as long as `keep` stay, and ending before the first snapshot that a stream still reads
from, that a writer's exactly-once check still looks for, or that carries a tag. Where such a position cannot be known, the
outcome is `refused`.

## When it runs
Saturdays at 06:00 UTC, or by hand with other limits.

## What a failure means
The catalog or a table's metadata could not be read. No stream, reader or table is affected.

## Can it wait until morning
Yes, and until Monday. `refused` on a table whose reader should have a checkpoint deserves a look the same day.

## What to do next
1. Read the report in the log of `examine`, or as its result under XCom.
2. `refused`: the reason names the stream; see the last report of `checkpoints_prune`.
3. Orphan files are from one look only, which is no proof: never delete them by hand.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable

from k2.airflow import forms
from k2.airflow.assets import report_asset
from k2.airflow.dags import Pool, Tag, platform_dag
from k2.airflow.operators import Report

with platform_dag(
    "iceberg_maintenance",
    runbook=__doc__,
    description="Examines every Iceberg table and reports what could be expired and what holds it; changes nothing yet",
    tags={Tag.TABLES, Tag.READS},
    schedule=CronTriggerTimetable("0 6 * * 6", timezone="UTC"),
    params={
        "dry_run": forms.dry_run(),
        "days": forms.limit(7, "Days", "Snapshots older than this could be expired.", minimum=1),
        "keep": forms.limit(100, "Keep", "So many snapshots stay, whatever their age; a table with no more is skipped.", minimum=1),
        "orphan_days": forms.limit(3, "Orphan days", "Files that no snapshot names count as orphans from this age on.", minimum=3),
    },
    dagrun_timeout=timedelta(hours=4),
    task_timeout=timedelta(hours=1),
    retries=1,
):
    Report(task_id="examine", report="iceberg_maintenance", pool=Pool.READERS, outlets=[report_asset("tables")])
