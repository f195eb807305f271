"""Incidents: opened once per key, told, resolved once, told again. Every function takes an open transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from k2.state.database import Connection

SAME_WITHIN_MINUTES = 10
"""An incident that comes back so soon after its end is the same one."""


def stream_key(stream: str) -> str:
    """The key of what is wrong with a stream itself."""
    return f"stream:{stream}"


def held_key(stream: str) -> str:
    """The key of a stream that is held until somebody has decided."""
    return f"held:{stream}"


def open_incident(connection: Connection, key: str, severity: str, title: str, detail: str) -> int | None:
    """Open an incident, or open one of the same key again that was resolved a moment ago: a cause that comes and goes is one.

    Returns its id, or None when one is open for this key already (its words are refreshed).
    """
    values = {"key": key, "severity": severity, "title": title, "detail": detail, "minutes": SAME_WITHIN_MINUTES}
    row = connection.execute(
        """
        UPDATE k2.incidents SET severity = %(severity)s, title = %(title)s, detail = %(detail)s, evidence = NULL, times = times + 1,
            resolved_at = NULL, resolution = NULL, told_resolved_at = NULL
        WHERE id = (SELECT max(id) FROM k2.incidents WHERE key = %(key)s)
            AND resolved_at > clock_timestamp() - make_interval(mins => %(minutes)s)
        RETURNING id
        """,
        values,
    ).fetchone()
    if row is not None:
        return int(row["id"])
    row = connection.execute(
        """
        INSERT INTO k2.incidents (key, severity, title, detail) VALUES (%(key)s, %(severity)s, %(title)s, %(detail)s)
        ON CONFLICT (key) WHERE resolved_at IS NULL DO UPDATE SET title = excluded.title, detail = excluded.detail RETURNING id, xmax = 0 AS is_new
        """,
        values,
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


def is_open(connection: Connection, key: str) -> bool:
    return connection.execute("SELECT 1 FROM k2.incidents WHERE key = %s AND resolved_at IS NULL", (key,)).fetchone() is not None


def is_untold(connection: Connection, key: str) -> bool:
    """Whether an incident is open for this key of which people will hear only now."""
    return connection.execute("SELECT 1 FROM k2.incidents WHERE key = %s AND resolved_at IS NULL AND told_opened_at IS NULL", (key,)).fetchone() is not None


def withdraw(connection: Connection, key: str, age: timedelta) -> None:
    """Take back an open incident that is no older than this and that nobody was told of: another one has its cause."""
    connection.execute(
        "DELETE FROM k2.incidents WHERE key = %s AND resolved_at IS NULL AND told_opened_at IS NULL AND opened_at > clock_timestamp() - %s", (key, age)
    )


def open_keys(connection: Connection) -> dict[str, datetime]:
    """The keys for which an incident is open, and since when."""
    return {row["key"]: row["opened_at"] for row in connection.execute("SELECT key, opened_at FROM k2.incidents WHERE resolved_at IS NULL")}


def tellable(connection: Connection) -> list[dict[str, Any]]:
    """Incidents of which people may have to be told something: those that are open, and those whose end they do not know."""
    return connection.execute("SELECT * FROM k2.incidents WHERE resolved_at IS NULL OR told_resolved_at IS NULL ORDER BY id").fetchall()


def told(connection: Connection, incident: dict[str, Any], message: dict[str, Any]) -> None:
    """Remember that people were told of an incident as it is in this row, and the message that later ones answer to."""
    connection.execute(
        """
        UPDATE k2.incidents SET message = %(message)s, told_at = clock_timestamp(), told_times = %(times)s,
            told_opened_at = coalesce(told_opened_at, clock_timestamp()),
            told_resolved_at = CASE WHEN %(resolved)s THEN clock_timestamp() ELSE told_resolved_at END
        WHERE id = %(id)s AND times = %(times)s
        """,
        {"id": incident["id"], "times": incident["times"], "resolved": incident["resolved_at"] is not None, "message": Jsonb(message)},
    )


def told_in_digest(connection: Connection, incident: dict[str, Any]) -> None:
    """Remember that a digest told of an incident as it is in this row; the end of an open one is told by a message of its own."""
    connection.execute(
        """
        UPDATE k2.incidents SET told_opened_at = clock_timestamp(), told_at = clock_timestamp(), told_times = %(times)s,
            told_resolved_at = CASE WHEN %(resolved)s THEN clock_timestamp() END
        WHERE id = %(id)s AND times = %(times)s AND told_opened_at IS NULL
        """,
        {"id": incident["id"], "times": incident["times"], "resolved": incident["resolved_at"] is not None},
    )


def open_incidents(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("SELECT * FROM k2.incidents WHERE resolved_at IS NULL ORDER BY opened_at").fetchall()
