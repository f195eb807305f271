"""The last verdict on each stream, with the readings that led to it, as the watchdog wrote them down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from k2.registry.observed import Observation
from k2.state.database import Connection

_OBSERVATION = TypeAdapter(Observation)


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
        return _OBSERVATION.validate_python(document)
    except ValidationError:
        return None
