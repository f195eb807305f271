"""How large the checkpoints were at earlier looks. Every function takes an open transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from k2.state.database import Connection

KEPT = timedelta(days=30)
LEAST = timedelta(hours=20)
MOST = timedelta(days=7)
"""Growth is told from the oldest size of the last week, and from none that is younger than most of a day: batches come and go."""


def remember(connection: Connection, at: datetime, found: Mapping[str, tuple[int, int]]) -> None:
    """Write down files and bytes per folder, and forget what is older than a month."""
    connection.execute("DELETE FROM k2.checkpoint_sizes WHERE at < %s", (at - KEPT,))
    for folder, (files, size) in found.items():
        connection.execute(
            "INSERT INTO k2.checkpoint_sizes (folder, at, files, bytes) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", (folder, at, files, size)
        )


def earlier(connection: Connection, now: datetime) -> dict[str, tuple[datetime, int]]:
    """Per folder, when it was looked at and how many bytes it had; a folder without such a look is missing."""
    rows = connection.execute(
        "SELECT DISTINCT ON (folder) folder, at, bytes FROM k2.checkpoint_sizes WHERE at BETWEEN %s AND %s ORDER BY folder, at", (now - MOST, now - LEAST)
    ).fetchall()
    return {row["folder"]: (row["at"], row["bytes"]) for row in rows}
