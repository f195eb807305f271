"""Airflow's four components: their configuration file, and how one sees that they work."""

from __future__ import annotations

import base64
import configparser
import hashlib
import io
import json
import sys
from collections.abc import Mapping
from datetime import datetime

import psycopg

from k2.registry.runtime import Runtime
from k2.stack.home import Home, write_atomically
from k2.stack.service import Check, Service, Unhealthy, http

LOGIN = "admin"
PARALLELISM = 8
HEARTBEAT_LOST_SECONDS = 45
HEARTBEAT_AGE = "SELECT extract(epoch FROM now() - max(latest_heartbeat)) FROM job WHERE job_type = %s AND state = 'running' AND start_date >= %s"
COMPONENTS = {"airflow_scheduler": "SchedulerJob", "airflow_dag_processor": "DagProcessorJob", "airflow_triggerer": "TriggererJob"}
"""Each component that heartbeats into Airflow's database, and its job type there."""


def settings(home: Home, runtime: Runtime) -> dict[str, dict[str, str]]:
    """What differs from Airflow's defaults. It holds passwords: for a file of mode 0600 only."""
    fernet = base64.urlsafe_b64encode(hashlib.sha256(home.secret("airflow_fernet").encode()).digest()).decode()
    database = f"k2_airflow:{home.secret('postgres_airflow')}@{runtime.postgres_host}:{runtime.postgres_port}/airflow"
    return {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": str(PARALLELISM),
            "dags_folder": str(runtime.tree / "dags"),
            "plugins_folder": str(runtime.tree / "plugins"),
            "load_examples": "False",
            "fernet_key": fernet,
            "execution_api_server_url": f"{runtime.airflow}/execution/",
            "hostname_callable": "socket.gethostname",
            "simple_auth_manager_users": f"{LOGIN}:admin",
            "simple_auth_manager_passwords_file": str(home.airflow / "passwords.json"),
            "dags_are_paused_at_creation": "False",
            "min_serialized_dag_update_interval": "5",
        },
        "database": {"sql_alchemy_conn": f"postgresql+psycopg2://{database}", "sql_alchemy_conn_async": f"postgresql+asyncpg://{database}"},
        "api": {
            "host": "127.0.0.1",
            "port": runtime.airflow.rpartition(":")[2],
            "base_url": runtime.airflow,
            "workers": "1",
            "secret_key": home.secret("airflow_api"),
            "instance_name": "K2",
        },
        "api_auth": {"jwt_secret": home.secret("airflow_jwt")},
        "scheduler": {"scheduler_idle_sleep_time": "0.2", "task_instance_heartbeat_timeout": "60"},
        "dag_processor": {"refresh_interval": "30", "min_file_process_interval": "30", "parsing_processes": "1", "disable_bundle_versioning": "True"},
        "logging": {
            "base_log_folder": str(home.logs / "airflow"),
            "dag_processor_child_process_log_directory": str(home.logs / "airflow" / "dag_processor"),
            "colored_console_log": "False",
        },
        "usage_data_collection": {"enabled": "False"},
    }


def render(sections: Mapping[str, Mapping[str, str]]) -> str:
    parser = configparser.RawConfigParser()
    parser.read_dict({name: {key: value.replace("%", "%%") for key, value in values.items()} for name, values in sections.items()})
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def write_config(home: Home, runtime: Runtime) -> None:
    write_atomically(home.airflow / "airflow.cfg", render(settings(home, runtime)), mode=0o600)
    write_atomically(home.airflow / "passwords.json", json.dumps({LOGIN: home.secret("airflow_admin")}), mode=0o600)


def _heartbeats(runtime: Runtime, job_type: str) -> Check:
    """Healthy when the component that was started then has a running job with a recent heartbeat."""

    async def check(started: datetime) -> None:
        login = runtime.conninfo("airflow") | {"dbname": "airflow"}
        try:
            connection = await psycopg.AsyncConnection.connect(**login)  # type: ignore[arg-type]
            async with connection:
                cursor = await connection.execute(HEARTBEAT_AGE, (job_type, started))
                row = await cursor.fetchone()
        except psycopg.Error as error:
            raise Unhealthy(str(error).splitlines()[0]) from error
        if row is None or row[0] is None:
            raise Unhealthy("it has not reported to Airflow's database yet")
        if row[0] > HEARTBEAT_LOST_SECONDS:
            raise Unhealthy(f"its last heartbeat is {row[0]:.0f} s old")

    return check


def services(home: Home, runtime: Runtime) -> list[Service]:
    """The one-time set-up and the four components. Log servers are left out: the API server reads the same files."""
    environment = {"AIRFLOW_HOME": str(home.airflow)}
    airflow = (sys.executable, "-m", "airflow")
    port = int(runtime.airflow.rpartition(":")[2])

    def component(name: str, *command: str, grace_seconds: float = 20) -> Service:
        return Service(
            name=name,
            argv=(*airflow, *command),
            healthy=_heartbeats(runtime, COMPONENTS[name]),
            needs=("airflow_setup",),
            env=environment,
            stateless=True,
            grace_seconds=grace_seconds,
        )

    return [
        Service(
            name="airflow_setup",
            argv=(sys.executable, "-m", "k2.airflow.setup"),
            needs=("postgres",),
            env=environment,
            prepare=lambda: write_config(home, runtime),
        ),
        Service(
            name="airflow_api_server",
            argv=(*airflow, "api-server"),
            healthy=http(f"{runtime.airflow}/execution/health"),  # its first answer takes seconds, which no task should spend waiting
            needs=("airflow_setup",),
            env=environment,
            ports=(port,),
            stateless=True,
            stop_after=("airflow_scheduler",),  # a task at work ends by telling the API server so
            grace_seconds=3,  # it keeps no state, and would wait for every browser that holds a connection
        ),
        component("airflow_scheduler", "scheduler", "--skip-serve-logs"),
        component("airflow_dag_processor", "dag-processor"),
        component("airflow_triggerer", "triggerer", "--skip-serve-logs", grace_seconds=3),  # it keeps no state either
    ]
