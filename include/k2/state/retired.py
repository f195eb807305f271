"""Tombstones of retired checkpoints. Every function takes an open transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from k2.state.database import Connection


@dataclass(frozen=True)
class Tombstone:
    folder: str
    at: datetime
    who: str
    reason: str
    entry: str | None
    """Where it lies in the quarantine; None while it is being retired."""

    def __str__(self) -> str:
        """For whoever wants its stream to run."""
        when = f"since {self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.entry else "and the retiring was interrupted"
        return f"its checkpoint {self.folder} is retired, {when}, by {self.who}: {self.reason}"


def all_of(connection: Connection) -> dict[str, Tombstone]:
    """By folder."""
    rows = connection.execute("SELECT folder, at, who, reason, entry FROM k2.retired").fetchall()
    return {row["folder"]: Tombstone(**row) for row in rows}


def of(connection: Connection, folder: str) -> Tombstone | None:
    row = connection.execute("SELECT folder, at, who, reason, entry FROM k2.retired WHERE folder = %s", (folder,)).fetchone()
    return Tombstone(**row) if row else None


def begin(connection: Connection, folder: str, *, who: str, reason: str) -> None:
    """From the moment this commits nothing starts there. One that is being retired already keeps its first word."""
    connection.execute("INSERT INTO k2.retired (folder, who, reason) VALUES (%s, %s, %s) ON CONFLICT (folder) DO NOTHING", (folder, who, reason))


def finish(connection: Connection, folder: str, entry: str) -> None:
    connection.execute("UPDATE k2.retired SET entry = %s WHERE folder = %s", (entry, folder))


def forget(connection: Connection, folder: str) -> None:
    connection.execute("DELETE FROM k2.retired WHERE folder = %s", (folder,))
