"""What people do not know yet, as the database has it."""

from __future__ import annotations

from datetime import UTC, datetime

from k2.alerts.due import due
from k2.alerts.muting import Telling, plan
from k2.registry.runtime import Runtime
from k2.state import windows
from k2.state.database import connect
from k2.state.incidents import tellable


def waiting(runtime: Runtime) -> Telling:
    """The incidents of which people have to be told something, but for what maintenance windows mute, and the digests of those that are over."""
    with connect(runtime, "control") as connection:
        rows, all_windows = tellable(connection), windows.unfinished(connection)
    now = datetime.now(UTC)
    news = [(row, what) for row in rows if (what := due(row, now)) is not None]
    return plan(news, all_windows, {name: spec.type for name, spec in runtime.platform.streams.items()}, now)
