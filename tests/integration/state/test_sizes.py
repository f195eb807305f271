"""Earlier sizes of checkpoints, in a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from k2.registry.runtime import Runtime
from k2.state import sizes
from k2.state.database import connect


def test_growth_is_told_from_the_oldest_of_a_week(own_database: Runtime) -> None:
    """Not from a look of today, and not from what is forgotten."""
    now = datetime(2026, 11, 30, 2, 30, tzinfo=UTC)
    with connect(own_database, "control") as connection:
        for days, size in ((40, 1), (8, 2), (6, 3), (1, 4), (0.5, 5)):
            sizes.remember(connection, now - timedelta(days=days), {"a": (1, size)})
        sizes.remember(connection, now - timedelta(hours=3), {"b": (1, 7)})
        assert sizes.earlier(connection, now) == {"a": (now - timedelta(days=6), 3)}
        kept = connection.execute("SELECT bytes FROM k2.checkpoint_sizes WHERE folder = 'a' ORDER BY at").fetchall()
    assert [row["bytes"] for row in kept] == [2, 3, 4, 5]
