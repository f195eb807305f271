"""When each watcher last looked: what the status page shows and a dead man's switch judges."""

from __future__ import annotations

from typing import Any

from k2.state.database import Connection


def looked(connection: Connection, watcher: str, detail: str = "") -> None:
    connection.execute(
        """
        INSERT INTO k2.watchers (watcher, seen_at, detail) VALUES (%s, clock_timestamp(), %s)
        ON CONFLICT (watcher) DO UPDATE SET seen_at = excluded.seen_at, detail = excluded.detail
        """,
        (watcher, detail),
    )


def failing(connection: Connection, watcher: str, why: str) -> None:
    """A watcher that cannot look says why. That is no look: it stays as long ago as it was."""
    connection.execute(
        """
        INSERT INTO k2.watchers (watcher, seen_at, detail) VALUES (%s, clock_timestamp(), %s)
        ON CONFLICT (watcher) DO UPDATE SET detail = excluded.detail
        """,
        (watcher, why),
    )


def ages(connection: Connection) -> dict[str, tuple[float, str]]:
    """Seconds since each watcher looked, by the database's clock, and its detail."""
    rows = connection.execute("SELECT watcher, extract(epoch FROM clock_timestamp() - seen_at)::float8 AS age, detail FROM k2.watchers").fetchall()
    return {row["watcher"]: (row["age"], row["detail"]) for row in rows}


def watchers(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("SELECT watcher, seen_at, detail FROM k2.watchers ORDER BY watcher").fetchall()
