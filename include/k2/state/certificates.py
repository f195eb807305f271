"""The certificates of the streams: written once, never changed. Every function takes an open transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from k2.registry.certificate import Certificate, digest
from k2.registry.history import Launch
from k2.state.database import Connection

_SIGNED = ("stream", "fence", "at", "query", "first", "last", "batches", "rows", "fences", "color", "checks", "previous")


@dataclass(frozen=True)
class Due:
    """A launch that has committed and has no certificate yet, or one that says unknown."""

    stream: str
    fence: int
    since: int | None
    """The last batch that a green certificate of the same query covers."""
    whole: bool = False
    """All since then is to be covered, however long it is: the last certificate was red, and nobody has asked for a start after that."""


def due(connection: Connection) -> list[Due]:
    """What is to be certified now. An unknown one is tried again after a minute, then after as long as it has been tried."""
    rows = connection.execute(
        """
        SELECT s.stream, s.fence, (
            SELECT g.last FROM k2.certificates g
            WHERE g.stream = s.stream AND g.color = 'green' AND g.query = s.known_query_id ORDER BY g.id DESC LIMIT 1) AS since,
            coalesce((
                SELECT r.color = 'red' AND b.generation = l.generation
                FROM k2.certificates r JOIN k2.launches b ON b.stream = r.stream AND b.fence = r.fence
                WHERE r.stream = s.stream AND r.color <> 'unknown' ORDER BY r.id DESC LIMIT 1), false) AS whole
        FROM k2.streams s JOIN k2.launches l ON l.stream = s.stream AND l.fence = s.fence
        LEFT JOIN LATERAL (
            SELECT count(*) AS tries, bool_or(color <> 'unknown') AS known, min(at) AS first_at, max(at) AS last_at
            FROM k2.certificates c WHERE c.stream = s.stream AND c.fence = s.fence
        ) c ON true
        WHERE l.first_commit_at IS NOT NULL AND (
            c.tries = 0 OR (NOT c.known AND clock_timestamp() >= c.last_at + greatest(c.last_at - c.first_at, interval '1 minute')))
        ORDER BY l.first_commit_at
        """
    ).fetchall()
    return [Due(**row) for row in rows]


def ledger(connection: Connection, stream: str) -> tuple[int, str | None, dict[int, Launch]]:
    """Of one stream the fence, the query id that its checkpoint is known by, and every launch by its fence.

    Raises LookupError for a stream without a row.
    """
    row = connection.execute("SELECT fence, known_query_id FROM k2.streams WHERE stream = %s", (stream,)).fetchone()
    if row is None:
        raise LookupError(f"stream {stream!r} is not registered in the database: run ./k2 up again")
    launches = connection.execute("SELECT fence, adopted, accepted_loss, rebuilt FROM k2.launches WHERE stream = %s", (stream,)).fetchall()
    known = {l["fence"]: Launch(l["adopted"], {p: (a, b) for p, (a, b) in (l["accepted_loss"] or {}).items()}, l["rebuilt"]) for l in launches}  # noqa: E741
    return int(row["fence"]), row["known_query_id"], known


def write(connection: Connection, certificate: Certificate) -> str:
    """Keep a certificate. Returns its digest, which covers that of the stream's one before it."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('k2.certificates'))")
    before = connection.execute("SELECT digest FROM k2.certificates WHERE stream = %s ORDER BY id DESC LIMIT 1", (certificate.stream,)).fetchone()
    row: dict[str, Any] = {**certificate.as_dict(), "at": datetime.now(UTC), "previous": before["digest"] if before else None}
    row["digest"] = digest(_content(row))
    connection.execute(
        """
        INSERT INTO k2.certificates (stream, fence, at, query, first, last, batches, rows, fences, color, checks, previous, digest)
        VALUES (%(stream)s, %(fence)s, %(at)s, %(query)s, %(first)s, %(last)s, %(batches)s, %(rows)s, %(fences)s, %(color)s, %(checks)s,
            %(previous)s, %(digest)s)
        """,
        row | {"checks": Jsonb(row["checks"])},
    )
    return str(row["digest"])


def latest(connection: Connection) -> dict[str, dict[str, Any]]:
    """The newest certificate of each stream, as its row."""
    rows = connection.execute("SELECT DISTINCT ON (stream) * FROM k2.certificates ORDER BY stream, id DESC").fetchall()
    return {row["stream"]: row for row in rows}


def kept(connection: Connection, stream: str) -> list[dict[str, Any]]:
    """Every certificate of a stream, oldest first."""
    return connection.execute("SELECT * FROM k2.certificates WHERE stream = %s ORDER BY id", (stream,)).fetchall()


def changed(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The ids of a stream's certificates, oldest first, that are not as they were written, or whose predecessor is gone."""
    found, previous = [], None
    for row in rows:
        if row["previous"] != previous or row["digest"] != digest(_content(row)):
            found.append(int(row["id"]))
        previous = row["digest"]
    return found


def _content(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _SIGNED} | {"at": row["at"].astimezone(UTC).isoformat()}
