"""
# streams_control

## What it does
Lets a person start, stop or restart streams. It writes down what is wanted, with your name and reason, wakes
`streams_watch`, which acts, and ends when every stream is as wanted. It touches no driver itself.

* **start** brings a stream up that is down; one that runs is left alone.
* **stop** lets the driver finish the batch in flight and then end. The stream stays down until somebody starts it.
* **restart** is stop and start in one: a new driver under a higher fence, on the same checkpoint.

None of these loses or doubles a record.

* **adopt** starts a stream that is held with the verdict REWIND: its checkpoint is another one than before, or ends before
  a batch that was committed. Whoever adopts it says that this is right; batches that are committed again can double rows.

* **skip-poison** starts a stream that is held with the verdict POISONED: exactly the records that the verdict names go to
  `silver_dlq_trades` as `poison_skipped`, all others are processed as ever. It refuses a stream that is not held so, and every
  Bronze stream.

## When it runs
Only when a person triggers it, through its form or the REST API. The reason is required and goes into the audit log.

## What a failure means
The wish was recorded, but a stream was not as wanted at the deadline. The task's error names it, and what the watchdog last
said of it. The watchdog goes on trying; a later success needs no second run.

## Can it wait until morning
You are here because you wanted something now: read the error.

## What to do next
1. Open the last run of `streams_watch` and read what it did for the stream.
2. A driver that starts and dies: read its log, `./k2 logs STREAM`.
3. "A later request wants it ...": somebody else has asked for the opposite; the audit log says who and why.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.utils.types import DagRunType

from k2.airflow import forms
from k2.airflow.assets import STREAMS
from k2.airflow.dags import Tag, platform_dag
from k2.airflow.operators import ReachWish, RecordWish

REACH_SECONDS = 600

with platform_dag(
    "streams_control",
    runbook=__doc__,
    description="Start, stop or restart streams: records what is wanted, wakes the watchdog, waits until it is so",
    tags={Tag.STREAMS, Tag.ACTS, Tag.MANUAL},
    params={"stream": forms.stream_choice(), "action": forms.action_choice(), "reason": forms.reason()},
    max_active_runs=4,
    dagrun_timeout=timedelta(minutes=20),
    task_timeout=timedelta(minutes=15),
    allowed_run_types={DagRunType.MANUAL},
):
    record = RecordWish(task_id="record", outlets=[STREAMS], execution_timeout=timedelta(minutes=1))
    # It only waits and reads, and Airflow may fail a deferred task whose worker process was slow to leave.
    record >> ReachWish(task_id="reach", record_task_id="record", seconds=REACH_SECONDS, retries=2, retry_delay=timedelta(seconds=2))
