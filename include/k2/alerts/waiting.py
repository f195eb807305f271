"""The incidents of which people do not know all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from k2.alerts.due import Due, due
from k2.registry.runtime import Runtime
from k2.state.database import connect
from k2.state.incidents import tellable


def waiting(runtime: Runtime) -> list[tuple[dict[str, Any], Due]]:
    """The incidents of which people have to be told something, and what."""
    with connect(runtime, "control") as connection:
        rows = tellable(connection)
    now = datetime.now(UTC)
    return [(row, what) for row in rows if (what := due(row, now)) is not None]
