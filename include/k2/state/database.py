"""Connections to the `lakehouse` database, and its migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from k2.registry.platform import Platform
from k2.registry.runtime import Role, Runtime

MIGRATIONS = Path(__file__).parent / "migrations"

Connection = psycopg.Connection[dict[str, Any]]


class StateUnavailable(RuntimeError):
    """The database did not answer. What it would have said is unknown, not empty."""


@contextmanager
def connect(runtime: Runtime, role: Role) -> Iterator[Connection]:
    """One transaction: committed on leaving, rolled back on an exception. Rows are dicts."""
    try:
        connection = psycopg.connect(**runtime.conninfo(role), row_factory=dict_row)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        raise StateUnavailable(f"PostgreSQL at {runtime.postgres_host}:{runtime.postgres_port} did not answer: {error}") from error
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def session(runtime: Runtime, role: Role) -> Connection:
    """A connection to keep, each statement its own transaction. The caller closes it. Raises StateUnavailable."""
    try:
        return psycopg.connect(**runtime.conninfo(role), row_factory=dict_row, autocommit=True)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        raise StateUnavailable(f"PostgreSQL at {runtime.postgres_host}:{runtime.postgres_port} did not answer: {error}") from error


def migrate(runtime: Runtime) -> list[str]:
    """Apply the migrations that this database lacks, each in its own transaction. Returns their names."""
    applied = []
    with connect(runtime, "admin") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS public.k2_migrations (name text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
    for path in sorted(MIGRATIONS.glob("*.sql")):
        with connect(runtime, "admin") as connection:
            connection.execute("LOCK TABLE public.k2_migrations")
            if connection.execute("SELECT 1 FROM public.k2_migrations WHERE name = %s", (path.name,)).fetchone() is None:
                connection.execute(path.read_text())  # type: ignore[arg-type]
                connection.execute("INSERT INTO public.k2_migrations (name) VALUES (%s)", (path.name,))
                applied.append(path.name)
    return applied


def register(runtime: Runtime, platform: Platform) -> None:
    """Give every declared stream its row. A stream that is no longer declared keeps its row and its history."""
    with connect(runtime, "control") as connection:
        for stream in platform.streams:
            connection.execute("INSERT INTO k2.streams (stream) VALUES (%s) ON CONFLICT DO NOTHING", (stream,))
