"""
# streams_control

## What it does
Lets a person start, stop, restart or upgrade streams. It checks that the request makes sense, has a risky one approved,
writes down what is wanted, with your name and reason, wakes `streams_watch`, which acts, and ends when every stream is as
wanted. It touches no driver itself; only a checkpoint of a stopped stream that is retired or restored it moves at once.

* **start** brings a stream up that is down; one that runs is left alone. Loses and doubles nothing.
* **stop** lets the driver finish the batch in flight and then end. The stream stays down until somebody starts it. Nothing
  is lost unless it stays down for longer than Kafka keeps records.
* **restart** is stop and start in one: a new driver under a higher fence, on the same checkpoint. Of several streams, those
  that somebody has stopped are left alone. Loses and doubles nothing.
* **upgrade** proves first, then restarts with the code and configuration of now. For each stream in turn a shadow, a process
  of the host agent, runs its first batch on a copy of the checkpoint and writes it nowhere. If Spark accepts all of them, the
  drivers drain and their successors go on from the same checkpoints under the next fences. If not, no driver is touched, and
  `prove` fails with Spark's own reason. Loses and doubles nothing.
* **adopt** starts a stream that is held with the verdict REWIND. Its checkpoint is another one, or ends before a committed
  batch: it goes on from that; batches that are committed again are in the tables **twice**, records that the checkpoint has
  already passed are **never read**. Kafka no longer holds records: they are **skipped for ever**. The topic was made anew, or
  the snapshot is gone: the checkpoint is moved aside and the stream begins anew; rows can be in the tables **twice, or missing**.
* **rebuild** makes the checkpoint of one stream again from its tables, and starts it: when it is gone or damaged, when the stream is
  held as REWIND or INCOMPATIBLE, or when somebody has stopped it. Bronze goes on as a new query behind the last offset that its
  table holds of each partition; Silver as the same query, with its newest batch planned once more. The question says where that is,
  what proves it, and what Kafka has deleted meanwhile: that alone is lost. What cannot be proven is refused with the reason. The
  watchdog makes the plan anew in the start itself; if that loses more than was said, nothing is touched and the stream is held
  again. What lies in the place of the checkpoint goes whole into the quarantine.
* **retire** puts the checkpoint of one stream, which must be stopped and have no driver, whole into the quarantine, with who and why. It
  refuses one that is damaged, is not the one that it was, or whose tables have later batches of its query. Its stream is not
  started until it is restored or rebuilt. The field `checkpoint` names a folder that no stream claims instead; then also nothing
  may have written to it for a day.
* **restore** puts the newest checkpoint of the stream that lies in the quarantine back into its place, or the entry or backup that the
  field `checkpoint` names, equal in every byte. The stream must be stopped, and stays so: use start. What lies in the place goes into
  the quarantine. If it is not the checkpoint that the stream was last seen with, the question says so, and the next start is
  that of an adopted one. A backup goes back only if its table stands where the backup does.
* **skip-poison** starts a stream that is held with the verdict POISONED: exactly the records that the verdict names go to
  `silver_dlq_trades` as `poison_skipped`, all others are processed as ever. It refuses a stream that is not held so, and every
  Bronze stream. Silver does **not have** those records.

A driver that cannot finish its batch is killed at the deadline, and the log of `reach` and the audit log say so; the next
driver replays that batch, so nothing is lost by it either.

**Approvals.** To stop a layer or all streams, to adopt, rebuild, retire, restore and skip, somebody must approve under *Required Actions* of the run. The
question says which streams, how far they are behind and what can go wrong. A no, or no answer in time, changes nothing: the
run ends with its later tasks skipped, and the audit log names who said it.

## When it runs
Only when a person triggers it, through its form or the REST API. The reason is required and goes into the audit log, which
`./k2 audit` shows: who asked, who approved, why, and how the stream stood before and after.

## What a failure means
`check` failed: the request makes no sense for the stream as it is, and nothing was recorded. The error names the field, its
value and what to do instead. `prove` failed: the stream was not upgraded and runs as before; the error says why, and the
shadow's log is under `logs/drivers/shadows` of the platform's home. `record` failed: it says whether nothing was recorded, or why a
checkpoint was not moved; it is where it was. `reach` failed: the wish was recorded, but a stream was
not as wanted at the deadline. The error names it, and what the watchdog last said of it. The watchdog goes on trying; a later
success needs no second run.

## Can it wait until morning
You are here because you wanted something now: read the error.

## What to do next
1. Open the last run of `streams_watch` and read what it did for the stream.
2. A driver that starts and dies: read its log, `./k2 logs STREAM`.
3. "A later request wants it ...": somebody else has asked for the opposite; `./k2 audit` says who and why.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.utils.types import DagRunType

from k2.airflow import forms
from k2.airflow.assets import STREAMS
from k2.airflow.dags import Tag, platform_dag
from k2.airflow.requests import AskApproval, CheckRequest, ProveUpgrade, ReachWish, RecordWish

with platform_dag(
    "streams_control",
    runbook=__doc__,
    description="Start, stop, restart or upgrade streams: checks and records what is wanted, has risky requests approved, waits until it is so",
    tags={Tag.STREAMS, Tag.ACTS, Tag.MANUAL},
    params={"stream": forms.stream_choice(), "action": forms.action_choice(), "checkpoint": forms.checkpoint_choice(), "reason": forms.reason()},
    # Requests that wait for an approval must not keep an urgent one waiting.
    max_active_runs=16,
    # Longer than the longest approval and the longest way that platform.yaml may allow.
    dagrun_timeout=timedelta(minutes=150),
    task_timeout=timedelta(minutes=1),
    allowed_run_types={DagRunType.MANUAL},
):
    # A rebuild is planned from whole tables, and a checkpoint that is moved is examined.
    check = CheckRequest(task_id="check", execution_timeout=timedelta(minutes=10))
    # An answer within the same second finds the worker process still leaving, and Airflow fails the task for it: it asks again.
    approve = AskApproval(task_id="approve", check_task_id="check", retries=2, retry_delay=timedelta(seconds=2))
    prove = ProveUpgrade(task_id="prove", execution_timeout=timedelta(minutes=30))
    # It also moves a checkpoint that is retired or goes back, of which every file is read.
    record = RecordWish(
        task_id="record",
        check_task_id="check",
        approve_task_id="approve",
        prove_task_id="prove",
        outlets=[STREAMS],
        execution_timeout=timedelta(minutes=20),
    )
    # It only waits and reads, and Airflow may fail a deferred task whose worker process was slow to leave.
    reach = ReachWish(task_id="reach", record_task_id="record", execution_timeout=timedelta(minutes=65), retries=2, retry_delay=timedelta(seconds=2))
    check >> approve >> prove >> record >> reach
