"""
# streams_watch

## What it does
Looks at every stream, decides what must be done, does it, and ends. A stream that is wanted and whose driver is gone, or
lives and does not move, gets a new driver under a higher fence; one that nobody wants is drained and stopped; one that is
merely idle is left alone; one that cannot be judged, or whose checkpoint is not the one that it was, is held. This is the
only DAG that starts or stops a stream. `./k2 explain STREAM` shows what it sees.

* `watch` observes afresh, decides and acts. Its log is a table: what it saw of each stream, what it concluded, what it did.
* `tell` sends new and ended incidents to Slack. It is skipped when there is nothing to tell.

## When it runs
Within about two seconds of a change: a trigger in the triggerer polls all streams and creates an event on the asset
`k2_streams`. Also every minute by the clock, in case the trigger is down, and at once after `streams_control`.
One run at a time. While it drains a stream, which may take a minute, it looks every few seconds for other streams that died or are
to be started or stopped; what only a full look finds, that a stream hangs, waits for the drain.
A poll that has not looked for a minute is a ticket, which a run opens and resolves. When neither it nor a run has looked for
two minutes, or no run for six, the host agent pages by itself.

## What a failure means
`watch` failed: nothing could be looked at, or an action did not come through; its log names which. The next run, within a
minute, does what is still due. `tell` failed: Slack did not take a message; incidents stay in the database and the next
run tries again.

## Can it wait until morning
A failing `watch` cannot: it pages. A failing `tell` can, while somebody looks at `./k2 status`.

## What to do next
1. Read the log of `watch`. A stream that is UNKNOWN names what could not be read: PostgreSQL, Kafka, the host agent.
2. `./k2 status` shows which process of the platform is down, `./k2 logs NAME` its log.
3. A stream that is held after repeated deaths: read its driver's log (`./k2 logs STREAM --fence N`), fix the cause, then use
   `streams_control` with action `start`.
4. Incidents that nobody was told of: check the connection `k2_slack` under Admin / Connections.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable

from k2.airflow.assets import watched_streams
from k2.airflow.dags import Tag, platform_dag
from k2.airflow.operators import TellPeople, WatchStreams

with platform_dag(
    "streams_watch",
    runbook=__doc__,
    description="Looks at every stream, restarts what died, stops what nobody wants, tells people in Slack",
    tags={Tag.STREAMS, Tag.ACTS},
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("* * * * *", timezone="UTC"), assets=watched_streams()),
    dagrun_timeout=timedelta(minutes=15),
    task_timeout=timedelta(minutes=5),
    # Safe to repeat: each attempt observes anew. At once, because the API server may just have been started again.
    retries=3,
    retry_delay=timedelta(seconds=1),
):
    watch = WatchStreams(task_id="watch", priority_weight=100)
    tell = TellPeople(task_id="tell", execution_timeout=timedelta(minutes=2))
    # A teardown runs after a failed watch too, and does not decide the run: Slack being away is no failure of the supervision.
    watch >> tell.as_teardown()
