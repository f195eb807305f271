"""One DAG without a task: what Airflow itself takes for any DAG file. The rival of `./k2 bench parse`; no DAG folder holds it."""

from datetime import UTC, datetime

from airflow.sdk import DAG

with DAG("empty", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    pass
