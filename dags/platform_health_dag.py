"""
# platform_health

## What it does
Reads the platform and judges it against the green, yellow and red of `thresholds` in platform.yaml: memory of each
driver and process against its budget, lag of each stream in rows and seconds, dead-lettered rows as a share of all rows per
exchange over 24 h, size of each checkpoint, duration of the last batch against the trigger, age of the newest rows per
table, disk. Each check has a value, its limits, a status and what to do. What cannot be read is *unknown*, never green.

Red opens an incident that pages, unknown a ticket, yellow a line in the digest channel; the next run that finds the check
green resolves them. Slack hears of it from `streams_watch` within a minute.

## When it runs
Every day at 06:30 UTC, before people come in, or by hand at any time.

## What a failure means
The report could not be made or its incidents not be stored: most likely PostgreSQL was away. A source that cannot be read
does not fail the run; its checks are unknown.

## Can it wait until morning
The report is made for the morning. A page that it opens cannot wait.

## What to do next
1. Read the report in the log of `examine`: the worst stands first, and what to do stands below the table.
2. After the cause is mended, run it again by hand: what is green again is resolved, in Slack too.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable

from k2.airflow.assets import report_asset
from k2.airflow.dags import Pool, Tag, platform_dag
from k2.airflow.operators import Report

with platform_dag(
    "platform_health",
    runbook=__doc__,
    description="Judges memory, lag, DLQ rate, checkpoints, batches, freshness and disk against the thresholds; red pages",
    tags={Tag.HEALTH, Tag.READS},
    schedule=CronTriggerTimetable("30 6 * * *", timezone="UTC"),
    dagrun_timeout=timedelta(hours=1),
    task_timeout=timedelta(minutes=10),
    retries=1,
):
    Report(task_id="examine", report="platform_health", pool=Pool.READERS, outlets=[report_asset("health")])
