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


def watchers(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("SELECT watcher, seen_at, detail FROM k2.watchers ORDER BY watcher").fetchall()
