"""The last verdict on each stream, with the readings that led to it. Every function takes an open transaction."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from k2.registry.observed import Decision, Observation
from k2.state.database import Connection

OBSERVATION = TypeAdapter(Observation)


@dataclass(frozen=True)
class Recorded:
    stream: str
    verdict: str
    because: str
    since: datetime
    seen_at: datetime
    observation: Observation | None
    """None when it was written in words that this version does not know."""


def recorded(connection: Connection) -> dict[str, Recorded]:
    """By stream; one that was never judged is missing."""
    rows = connection.execute("SELECT stream, verdict, because, since, seen_at, observation FROM k2.verdicts").fetchall()
    return {row["stream"]: Recorded(**row | {"observation": _observation(row["observation"])}) for row in rows}


def _observation(document: object) -> Observation | None:
    try:
        return OBSERVATION.validate_python(document)
    except ValidationError:
        return None


def record(connection: Connection, verdicts: Iterable[tuple[Decision, bytes]], at: datetime) -> None:
    """Each decision with its observation as JSON. A verdict that stands keeps the moment since when it has.

    The observations are sent in binary form: as an array's text, each of their quotes would have to be escaped.
    """
    rows = list(verdicts)
    if not rows:
        return
    connection.execute(
        """
        INSERT INTO k2.verdicts (stream, verdict, because, since, seen_at, observation, dependency)
        SELECT stream, verdict, because, %(at)s, %(at)s, observation::jsonb, dependency
        FROM unnest(%(streams)s::text[], %(verdicts)s::text[], %(because)s::text[], %(observations)b::text[], %(dependencies)s::text[])
            AS f (stream, verdict, because, observation, dependency)
        ON CONFLICT (stream) DO UPDATE SET
            dependency = CASE WHEN excluded.verdict IN ('UNKNOWN', 'WAITING_DEPENDENCY') THEN coalesce(excluded.dependency, k2.verdicts.dependency)
                WHEN excluded.verdict IN ('DEAD', 'STARTING') AND k2.verdicts.dependency = 'schema_registry' THEN k2.verdicts.dependency
                ELSE excluded.dependency END,
            verdict = excluded.verdict, because = excluded.because, seen_at = excluded.seen_at, observation = excluded.observation,
            since = CASE WHEN k2.verdicts.verdict = excluded.verdict THEN k2.verdicts.since ELSE excluded.since END
        """,
        {
            "streams": [decision.stream for decision, _ in rows],
            "verdicts": [str(decision.verdict) for decision, _ in rows],
            "because": [decision.because for decision, _ in rows],
            "observations": [observation.decode() for _, observation in rows],
            "dependencies": [decision.dependency for decision, _ in rows],
            "at": at,
        },
    )


def waiting_for(connection: Connection, names: Container[str]) -> dict[str, dict[str, str]]:
    """Which of these streams wait for which dependency: {dependency: {stream: because}}. One that cannot be known goes on waiting."""
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute("SELECT stream, dependency, because FROM k2.verdicts WHERE dependency IS NOT NULL ORDER BY stream"):
        if row["stream"] in names:
            found.setdefault(row["dependency"], {})[row["stream"]] = row["because"]
    return found


def unknown_since(connection: Connection, names: Container[str], moment: datetime) -> dict[str, str]:
    """Of these streams, those of which nothing has been known since before that moment, each with why."""
    unknown = "SELECT stream, because FROM k2.verdicts WHERE verdict = 'UNKNOWN' AND since <= %s ORDER BY stream"
    return {row["stream"]: row["because"] for row in connection.execute(unknown, (moment,)) if row["stream"] in names}


def since(connection: Connection, stream: str) -> datetime | None:
    """Since when the last verdict on a stream has stood; None for one that was never judged."""
    row = connection.execute("SELECT since FROM k2.verdicts WHERE stream = %s", (stream,)).fetchone()
    return row["since"] if row else None


def dead_since(connection: Connection) -> dict[str, datetime]:
    """When each stream whose last verdict is DEAD was first seen so."""
    return {row["stream"]: row["since"] for row in connection.execute("SELECT stream, since FROM k2.verdicts WHERE verdict = 'DEAD'")}
