"""The history of a stream's tables and what it is compared with: plain values that readers fill and supervision judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

NO_SNAPSHOT = -1
"""Iceberg's snapshot id of a reader that has read none."""

Span = tuple[int, int]
"""First offset, and the one after the last."""


@dataclass(frozen=True)
class Piece:
    """Consecutive offsets of one Kafka partition that a batch holds: one file of Bronze, or one partition of a Silver batch."""

    partition: str
    first: int
    next: int
    rows: int | None = None
    """As the file counts them; None of a batch of Silver, which counts its rows as a whole."""


@dataclass(frozen=True)
class Commit:
    """One snapshot of a table's main branch."""

    snapshot: int
    at: datetime
    operation: str
    added: int = 0
    removed: int = 0
    """Rows of the files that it added and removed."""
    files: int = 0
    """Files that it added."""
    query: str | None = None
    """The streaming query that made it; None of any other commit."""
    batch: int | None = None
    fence: int | None = None
    rows_read: int | None = None
    rows_silver: int | None = None
    rows_dlq: int | None = None
    bronze_snapshot: int | None = None
    """The last four of Silver and DLQ."""
    pieces: tuple[Piece, ...] | None = None
    why_no_pieces: str = "its files were not read"


@dataclass(frozen=True)
class Chain:
    """The retained history of a table's main branch, oldest first, without a break. `whole`: it begins with the table's first snapshot."""

    commits: Sequence[Commit]
    whole: bool


@dataclass(frozen=True)
class Plans:
    """The checkpoint: `committed` was read before the tables and `planned` after, so neither says too much.

    `ends` are the offsets that Bronze planned each retained batch to end with; `positions` the Bronze snapshot and the number of its
    files that a batch of Silver read up to.
    """

    query: str | None
    committed: int | None
    planned: int | None
    ends: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    positions: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Launch:
    """`adopted`: a person let it start from another checkpoint, or knowing of a loss."""

    adopted: bool = False
    lost: Mapping[str, Span] = field(default_factory=dict)
    """Offsets per partition that Kafka no longer had, accepted by that person."""
    rebuilt: bool = False
    """Its checkpoint was made again from the tables: its query goes on where they end."""


@dataclass(frozen=True)
class History:
    """All that a certificate is judged from. A part that could not be read is None, with the reason in `unread` under its name."""

    stream: str
    layer: str
    """bronze or silver."""
    fence: int
    known_query: str | None
    table: Chain | None
    plans: Plans | None
    launches: Mapping[int, Launch]
    dlq: Chain | None = None
    bronze: Chain | None = None
    """Of Silver: the table that it reads."""
    unread: Mapping[str, str] = field(default_factory=dict)
