"""Maintenance windows. Every function takes an open transaction."""

from __future__ import annotations

from datetime import datetime

from k2.registry.windows import Window
from k2.state.database import Connection

_FIELDS = "id, scope, starts_at, ends_at, who, reason"


def open_window(connection: Connection, scope: str, starts_at: datetime, ends_at: datetime, *, who: str, reason: str) -> Window:
    """Record a window. Raises psycopg.errors.CheckViolation for one that ends before it starts."""
    row = connection.execute(
        f"INSERT INTO k2.windows (scope, starts_at, ends_at, who, reason) VALUES (%s, %s, %s, %s, %s) RETURNING {_FIELDS}",
        (scope, starts_at, ends_at, who, reason),
    ).fetchone()
    assert row is not None
    return Window(**row)


def close_windows(connection: Connection, scope: str, now: datetime) -> list[Window]:
    """End every window of exactly this scope that is open, and cancel those to come. Returns them as they are now."""
    rows = connection.execute(
        f"UPDATE k2.windows SET starts_at = least(starts_at, %(now)s), ends_at = %(now)s WHERE scope = %(scope)s AND ends_at > %(now)s RETURNING {_FIELDS}",
        {"scope": scope, "now": now},
    )
    return [Window(**row) for row in rows.fetchall()]


def unfinished(connection: Connection) -> list[Window]:
    """The windows to come, the open ones, and those that have ended and of which people have not been told, by their start."""
    return [Window(**row) for row in connection.execute(f"SELECT {_FIELDS} FROM k2.windows WHERE told_at IS NULL ORDER BY starts_at, id").fetchall()]


def told(connection: Connection, window: int) -> None:
    """Remember that people were told what happened during a window."""
    connection.execute("UPDATE k2.windows SET told_at = clock_timestamp() WHERE id = %s", (window,))
