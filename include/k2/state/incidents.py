"""Incidents: opened once per key, told, resolved once, told again. Every function takes an open transaction."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from k2.state.database import Connection


def stream_key(stream: str) -> str:
    """The key of what is wrong with a stream itself."""
    return f"stream:{stream}"


def open_incident(connection: Connection, key: str, severity: str, title: str, detail: str) -> int | None:
    """Open an incident. Returns its id, or None when one is open for this key already (its detail is refreshed)."""
    row = connection.execute(
        """
        INSERT INTO k2.incidents (key, severity, title, detail) VALUES (%s, %s, %s, %s)
        ON CONFLICT (key) WHERE resolved_at IS NULL DO UPDATE SET detail = excluded.detail RETURNING id, xmax = 0 AS is_new
        """,
        (key, severity, title, detail),
    ).fetchone()
    assert row is not None
    return int(row["id"]) if row["is_new"] else None


def resolve_incident(connection: Connection, key: str, resolution: str) -> int | None:
    """Resolve the open incident of this key. Returns its id, or None when there is none."""
    row = connection.execute(
        "UPDATE k2.incidents SET resolved_at = clock_timestamp(), resolution = %s WHERE key = %s AND resolved_at IS NULL RETURNING id", (resolution, key)
    ).fetchone()
    return int(row["id"]) if row else None


def add_evidence(connection: Connection, key: str, evidence: str) -> None:
    """Keep with the open incident of this key what was found beside the verdict. The last finding stands."""
    connection.execute("UPDATE k2.incidents SET evidence = %s WHERE key = %s AND resolved_at IS NULL", (evidence, key))


def untold(connection: Connection) -> list[dict[str, Any]]:
    """Incidents whose opening or resolution people have not been told, locked for the caller."""
    return connection.execute(
        """
        SELECT * FROM k2.incidents WHERE told_opened_at IS NULL OR (resolved_at IS NOT NULL AND told_resolved_at IS NULL)
        ORDER BY id FOR UPDATE SKIP LOCKED
        """
    ).fetchall()


def told(connection: Connection, incident: int, *, resolved: bool, message: dict[str, Any]) -> None:
    """Remember that people were told, and the message that later ones answer to."""
    connection.execute(
        """
        UPDATE k2.incidents SET message = %(message)s, told_opened_at = coalesce(told_opened_at, clock_timestamp()),
            told_resolved_at = CASE WHEN %(resolved)s THEN clock_timestamp() ELSE told_resolved_at END
        WHERE id = %(id)s
        """,
        {"id": incident, "resolved": resolved, "message": Jsonb(message)},
    )


def open_incidents(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("SELECT * FROM k2.incidents WHERE resolved_at IS NULL ORDER BY opened_at").fetchall()
