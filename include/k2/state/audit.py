"""Who did what to what, and why: rows are added and never changed. Takes an open transaction."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from k2.state.database import Connection


def record(connection: Connection, *, who: str, action: str, target: str, reason: str, state: dict[str, Any]) -> None:
    """An action that was asked for and found done already: the state before and after is the same."""
    connection.execute(
        "INSERT INTO k2.audit (who, action, target, reason, before, after) VALUES (%s, %s, %s, %s, %s, %s)",
        (who, action, target, reason, Jsonb(state), Jsonb(state)),
    )
