"""Who did what to what, and why: rows are added and never changed. Every function takes an open transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg.types.json import Jsonb

from k2.registry.wishes import Standing
from k2.state.database import Connection

_STANDING = """
    SELECT s.stream, s.desired, s.generation, s.fence, l.stream IS NOT NULL AND l.ended_at IS NULL AS runs,
           v.verdict, coalesce(v.because, '') AS because, v.seen_at, s.known_query_id AS query_id, s.known_batch AS batch,
           (v.observation #>> '{head,value,lag_rows}')::bigint AS lag_rows
    FROM k2.streams s LEFT JOIN k2.launches l ON l.stream = s.stream AND l.fence = s.fence LEFT JOIN k2.verdicts v ON v.stream = s.stream
"""


def standing(connection: Connection, stream: str) -> Standing:
    """How a stream stands now. Raises LookupError for a stream without a row."""
    row = connection.execute(_STANDING + "WHERE s.stream = %s", (stream,)).fetchone()
    if row is None:
        raise LookupError(f"stream {stream!r} is not registered in the database: run ./k2 up again")
    return Standing(**row)


def standings(connection: Connection, streams: Iterable[str]) -> list[Standing]:
    return [standing(connection, stream) for stream in streams]


def record(
    connection: Connection,
    *,
    who: str,
    action: str,
    target: str,
    reason: str,
    before: dict[str, Any],
    after: dict[str, Any],
    outcome: str = "recorded",
    request: str | None = None,
    approved_by: str | None = None,
) -> None:
    """Add one row. `request` ties the rows of one request together: the id of its run.

    `outcome` is recorded, done, nothing to do, reached, missed, rejected, refused or incompatible.
    """
    connection.execute(
        "INSERT INTO k2.audit (who, action, target, reason, before, after, outcome, request, approved_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (who, action, target, reason, Jsonb(before), Jsonb(after), outcome, request, approved_by),
    )


def recent(connection: Connection, stream: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The newest rows first, of one stream or of all: id, at, who, action, target, reason, before, after, request, outcome, approved_by."""
    return connection.execute(
        "SELECT * FROM k2.audit WHERE %(stream)s::text IS NULL OR target = %(stream)s ORDER BY id DESC LIMIT %(limit)s", {"stream": stream, "limit": limit}
    ).fetchall()
