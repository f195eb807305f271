"""What is known of a table's snapshots and files: plain values that the reader fills and the plan judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

QUERY_ID_PROPERTIES = ("k2.query-id", "spark.sql.streaming.queryId")


@dataclass(frozen=True)
class Snapshot:
    """One snapshot. `query_id` is the streaming query that made it, None for any other commit."""

    id: int
    parent: int | None
    at: datetime
    operation: str
    query_id: str | None = None


@dataclass(frozen=True)
class Files:
    """The data files of the current snapshot. Small: below 75 % of the table's target size, as rewriting counts it."""

    count: int
    bytes: int
    small: int


@dataclass(frozen=True)
class Orphans:
    """One look for files that no retained snapshot names. `why_not` says why there was no complete look; then the rest is 0."""

    count: int = 0
    bytes: int = 0
    examples: Sequence[str] = ()
    why_not: str | None = None


@dataclass(frozen=True)
class TableFacts:
    """One table at one moment. `refs` maps tags and branches, main among them, to their snapshot."""

    name: str
    metadata_location: str
    metadata_versions: int
    snapshots: Sequence[Snapshot]
    refs: Mapping[str, int]
    files: Files
    orphans: Orphans = field(default_factory=Orphans)

    def chain(self) -> list[Snapshot]:
        """The history of main, oldest first. It ends where a parent is gone."""
        known = {s.id: s for s in self.snapshots}
        found: list[Snapshot] = []
        at = self.refs.get("main")
        while at is not None and at in known:
            found.append(known[at])
            at = known[at].parent
        return found[::-1]


@dataclass(frozen=True)
class Floor:
    """What a reader or writer still stands on: `snapshot` and everything after it. None with the reason when that is unknown."""

    holder: str
    snapshot: int | None
    why_unknown: str | None = None
