"""Outages of streams, in k2.outages. Every function takes an open transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from k2.registry.observed import Outage, Unmended, Verdict
from k2.state.database import Connection

TOLD_OF_THEIR_OWN = (Verdict.WAITING_DEPENDENCY, Verdict.HEAD_MISMATCH, Verdict.SPLIT_BRAIN, Verdict.STOPPING, Verdict.STOPPED)
_COLUMNS = "id, stream, verdict, because, fence, good_at, detected_at, recovered_at, recovered_by, recovered_fence, caught_up_at, over_at, outcome"  # of Outage


def followed(connection: Connection) -> dict[str, Outage]:
    """The outage of each stream that is not over, by stream."""
    return {row["stream"]: Outage(**row) for row in connection.execute(f"SELECT {_COLUMNS} FROM k2.outages WHERE over_at IS NULL")}


def unmended(connection: Connection, names: Iterable[str]) -> list[Unmended]:
    """Of these streams those that are down, and of which no other incident tells why; the oldest outage first."""
    rows = connection.execute(
        """
        SELECT o.stream, o.detected_at, v.verdict, v.because FROM k2.outages o JOIN k2.verdicts v USING (stream)
        WHERE o.stream = ANY(%(names)s) AND o.over_at IS NULL AND o.recovered_at IS NULL AND v.verdict <> ALL(%(told)s)
            AND NOT EXISTS (SELECT FROM k2.incidents i WHERE i.key = 'held:' || o.stream AND i.resolved_at IS NULL)
        ORDER BY o.detected_at, o.stream
        """,
        {"names": list(names), "told": [str(verdict) for verdict in TOLD_OF_THEIR_OWN]},
    )
    return [Unmended(**row) for row in rows]


def begin(connection: Connection, outage: Outage) -> None:
    """An outage that another watchdog has begun already stands."""
    connection.execute(
        """
        INSERT INTO k2.outages (stream, verdict, because, fence, good_at, detected_at)
        VALUES (%(stream)s, %(verdict)s, %(because)s, %(fence)s, %(good_at)s, %(detected_at)s)
        ON CONFLICT (stream) WHERE over_at IS NULL DO NOTHING
        """,
        asdict(outage),
    )


def change(connection: Connection, outage: Outage) -> None:
    """Write down how far an outage is. The first word on its recovery stands."""
    connection.execute(
        """
        UPDATE k2.outages SET recovered_at = coalesce(recovered_at, %(recovered_at)s), recovered_by = coalesce(recovered_by, %(recovered_by)s),
            recovered_fence = coalesce(recovered_fence, %(recovered_fence)s), caught_up_at = %(caught_up_at)s, over_at = %(over_at)s, outcome = %(outcome)s
        WHERE id = %(id)s AND over_at IS NULL
        """,
        asdict(outage),
    )


def seen_idle(connection: Connection, stream: str) -> datetime | None:
    """When a stream was last seen with nothing to commit, if that is what its last verdict says."""
    row = connection.execute(
        "SELECT CASE verdict WHEN 'IDLE' THEN seen_at ELSE since END AS at FROM k2.verdicts WHERE stream = %s AND verdict IN ('IDLE', 'SUSPECT_DRIVER')",
        (stream,),
    ).fetchone()
    return row["at"] if row else None


def outages(connection: Connection, *, since: datetime, stream: str | None = None) -> list[Outage]:
    """Those that lasted beyond `since`, oldest first."""
    rows = connection.execute(
        f"""
        SELECT {_COLUMNS} FROM k2.outages
        WHERE coalesce(recovered_at, over_at, 'infinity') >= %(since)s AND (%(stream)s::text IS NULL OR stream = %(stream)s) ORDER BY detected_at, id
        """,
        {"since": since, "stream": stream},
    ).fetchall()
    return [Outage(**row) for row in rows]


def launches(connection: Connection, *, since: datetime, stream: str | None = None) -> list[dict[str, Any]]:
    """The starts since then, oldest first."""
    return connection.execute(
        "SELECT * FROM k2.launches WHERE intent_at >= %(since)s AND (%(stream)s::text IS NULL OR stream = %(stream)s) ORDER BY intent_at",
        {"since": since, "stream": stream},
    ).fetchall()


def first_starts(connection: Connection) -> dict[str, datetime]:
    """When each stream was started for the first time."""
    return {row["stream"]: row["at"] for row in connection.execute("SELECT stream, min(intent_at) AS at FROM k2.launches GROUP BY stream").fetchall()}
