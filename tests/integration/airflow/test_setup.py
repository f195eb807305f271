"""The set-up of Airflow's database: whole on an empty one, quick on a finished one, and mending what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psycopg

from k2.registry.runtime import Runtime


def set_up(runtime: Runtime) -> tuple[str, float]:
    """What it printed, and how many seconds it took."""
    environment = os.environ | {
        "AIRFLOW_HOME": str(runtime.home / "airflow"),
        "K2_RUNTIME": str(runtime.run / "runtime.json"),
        "PYTHONPATH": str(runtime.tree / "include"),
    }
    environment = {k: v for k, v in environment.items() if not k.startswith("AIRFLOW__")}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "k2.airflow.setup"], env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, time.monotonic() - began


def test_nothing_to_do_is_quick_and_a_lost_connection_is_mended(platform_stack: Runtime) -> None:
    """Nothing is imported when all is there; what somebody deleted is written again, the token encrypted."""
    said, seconds = set_up(platform_stack)
    assert "nothing to do" in said and seconds < 10
    login = platform_stack.conninfo("airflow") | {"dbname": "airflow"}
    with psycopg.connect(**login) as connection:  # type: ignore[arg-type]
        connection.execute("DELETE FROM connection WHERE conn_id = 'k2_slack'")
    said, _ = set_up(platform_stack)
    assert "connection k2_slack" in said
    with psycopg.connect(**login) as connection:  # type: ignore[arg-type]
        row = connection.execute("SELECT conn_type, password, is_encrypted FROM connection WHERE conn_id = 'k2_slack'").fetchone()
        pools = connection.execute("SELECT slots FROM slot_pool WHERE pool = 'k2_readers'").fetchall()
    assert row is not None and row[0] == "slack" and row[2] and "xoxb" not in row[1]
    assert pools == [(1,)]
