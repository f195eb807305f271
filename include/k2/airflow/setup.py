"""Makes Airflow's database ready: `python -m k2.airflow.setup`. One process, which imports Airflow once or not at all.

It migrates the database when needed and writes the connections and pools of the platform. What it wrote is remembered in
AIRFLOW_HOME/k2-setup.json; while that and three queries show that all is still there, nothing is imported and it ends in
a fraction of a second.

The Slack token is that of k2.alerts.direct: the file `slack_token` in the platform's secrets, or the stand-in's.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from k2.alerts.direct import slack_access
from k2.registry.runtime import Runtime, load_runtime

STAMP = "k2-setup.json"
POOLS = {"k2_readers": (1, "Reports that hold table metadata in memory: one at a time")}


@dataclass(frozen=True)
class Connection:
    """One Airflow connection of type slack."""

    conn_id: str
    token: str = field(repr=False)
    extra: dict[str, Any]


@dataclass(frozen=True)
class Desired:
    """What Airflow's database must hold."""

    airflow: str
    connections: tuple[Connection, ...]
    pools: dict[str, tuple[int, str]]

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def desired(runtime: Runtime) -> Desired:
    """From the runtime and its secrets. Without a stand-in and without a token there is no Slack connection."""
    access = slack_access(runtime)
    name = runtime.platform.alerts.slack_connection
    extra: dict[str, Any] = {"timeout": 10}
    if access is not None and access.base_url is not None:
        extra["base_url"] = access.base_url
    connections = (Connection(name, access.token, extra),) if access is not None else ()
    return Desired(importlib.metadata.version("apache-airflow"), connections, POOLS)


def is_done(runtime: Runtime, want: Desired, stamp: Path) -> bool:
    """Whether the database holds already what an earlier set-up wrote. Reads a few rows; False when there is any doubt."""
    try:
        facts = json.loads(stamp.read_text())
    except (FileNotFoundError, ValueError):
        return False
    if facts.get("digest") != want.digest():
        return False
    login = runtime.conninfo("airflow") | {"dbname": "airflow"}
    try:
        with psycopg.connect(**login) as connection:  # type: ignore[arg-type]
            revisions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            connections = {row[0] for row in connection.execute("SELECT conn_id FROM connection").fetchall()}
            pools = {row[0]: row[1] for row in connection.execute("SELECT pool, slots FROM slot_pool").fetchall()}
    except psycopg.errors.UndefinedTable:
        return False
    return (
        revisions == [(facts["revision"],)]
        and connections >= {c.conn_id for c in want.connections}
        and all(pools.get(name) == slots for name, (slots, _) in want.pools.items())
    )


def apply(want: Desired) -> str:
    """Migrate the database, write connections and pools. Returns the database's revision. Imports Airflow."""
    from airflow.models.connection import Connection as Row
    from airflow.models.pool import Pool
    from airflow.settings import Session
    from airflow.utils import db
    from sqlalchemy import select, text

    progress("migrating Airflow's database")
    db.upgradedb()
    with Session() as session, session.begin():
        for connection in want.connections:
            row = session.scalar(select(Row).where(Row.conn_id == connection.conn_id))
            if row is None:
                row = Row(conn_id=connection.conn_id)
                session.add(row)
            row.conn_type = "slack"
            row.description = "Alerts of the platform, written by ./k2 up"
            row.password = connection.token
            row.extra = json.dumps(connection.extra)
            progress(f"connection {connection.conn_id}")
        for name, (slots, description) in want.pools.items():
            Pool.create_or_update_pool(name, slots=slots, description=description, include_deferred=False, session=session)
            progress(f"pool {name}, {slots} slot{'s' if slots > 1 else ''}")
        return str(session.scalar(text("SELECT version_num FROM alembic_version")))


def progress(text: str) -> None:
    print(f"airflow set-up: {text}", flush=True)


def main() -> int:
    started = time.monotonic()
    runtime = load_runtime()
    want = desired(runtime)
    stamp = Path(os.environ["AIRFLOW_HOME"]) / STAMP
    if not want.connections:
        progress(f"no Slack token: alerts stay in the database; put one into {runtime.secrets / 'slack_token'} (mode 0600) and start again")
    if is_done(runtime, want, stamp):
        progress(f"nothing to do ({time.monotonic() - started:.1f} s)")
        return 0
    revision = apply(want)
    stamp.write_text(json.dumps({"digest": want.digest(), "revision": revision}))
    progress(f"done ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
