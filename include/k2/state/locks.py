"""Locks of actions on a checkpoint: who starts its stream, moves it, or takes something out of it does so alone.

A lock is no fence: the fence says who may write as a stream and is held while it runs, a lock is held by an action for as long
as that lasts. PostgreSQL drops it with the connection, so whoever is killed holds nothing.
"""

from __future__ import annotations

from psycopg import errors

from k2.state.database import Connection

WAIT_MS = 5000
"""So long a start waits for the stream's row as well."""


class Locked(RuntimeError):
    """Somebody else works on the checkpoint: the message says which one. Nothing was done; ask again."""


def lock_checkpoint(connection: Connection, folder: str) -> None:
    """Take the lock of a checkpoint until the transaction ends. Raises Locked when somebody else keeps it for longer than five seconds."""
    connection.execute(f"SET LOCAL lock_timeout = {WAIT_MS}")
    try:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('k2 checkpoint ' || %s, 0))", (folder,))
    except errors.LockNotAvailable:
        raise Locked(f"checkpoint {folder}: a start of its stream or another action on it is under way") from None
