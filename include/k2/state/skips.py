"""Records that a person sent to the dead-letter table instead of decoding them. Every function takes an open transaction."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from k2.registry.observed import Failure, Records
from k2.state.database import Connection


@dataclass(frozen=True)
class Skip:
    id: int
    batch: int
    records: Records


def add(connection: Connection, stream: str, failure: Failure, *, who: str, reason: str) -> int:
    """Remember that the records that a failure blames are to be skipped. Returns the id. Raises ValueError when it names none."""
    if not failure.records:
        raise ValueError(f"batch {failure.batch} of {stream} failed with {failure.fingerprint} and names no records: there is nothing to skip")
    row = connection.execute(
        "INSERT INTO k2.skips (stream, who, reason, fingerprint, batch, records) VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
        (stream, who, reason, failure.fingerprint, failure.batch, Jsonb(failure.records)),
    ).fetchone()
    assert row is not None
    return int(row["id"])


def of(connection: Connection, stream: str) -> list[Skip]:
    """All that was ever to be skipped of a stream, oldest first."""
    rows = connection.execute("SELECT id, batch, records FROM k2.skips WHERE stream = %s ORDER BY id", (stream,)).fetchall()
    return [Skip(**row) for row in rows]
