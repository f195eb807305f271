"""The ledger as people see it: outages, what they come to per stream, and the error budgets, read from the database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from k2.registry.platform import Platform, Slo
from k2.state import outages as state
from k2.state.database import Connection
from k2.supervision.budget import Budget, budget
from k2.supervision.ledger import Entry, Summary, entries, summarize


@dataclass(frozen=True)
class Account:
    """The streams over the last `days`; the budgets over the window of the objective, whatever `days` is."""

    at: datetime
    days: float
    slo: Slo
    entries: list[Entry]
    """Oldest first."""
    summaries: dict[str, Summary]
    budgets: dict[str, Budget]

    @property
    def allowed_seconds(self) -> float:
        return next(iter(self.budgets.values())).allowed_seconds

    def of(self, stream: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.outage.stream == stream]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "at": self.at.isoformat(),
            "days": self.days,
            "objective": self.slo.model_dump(),
            "streams": {name: asdict(self.summaries[name]) | {"budget": self.budgets[name].as_dict()} for name in self.summaries},
            "outages": [entry.as_dict() for entry in self.entries],
        }


def read(connection: Connection, platform: Platform, now: datetime, *, stream: str | None = None, days: float | None = None) -> Account:
    """The account of one stream, or of all of them, in an open transaction. `days`: by default the window of the objective."""
    names = [stream] if stream is not None else list(platform.streams)
    window = timedelta(days=platform.slo.window_days)
    shown = timedelta(days=days) if days is not None else window
    found = [o for o in state.outages(connection, since=now - max(window, shown), stream=stream) if o.stream in names]
    launches = state.launches(connection, since=min((o.detected_at for o in found), default=now), stream=stream)
    first = state.first_starts(connection)
    told = [e for e in entries(found, launches) if (e.outage.recovered_at or e.outage.over_at or now) >= now - shown]
    summaries = {
        name: summarize(name, [e for e in told if e.outage.stream == name], min(shown, now - first[name]) if name in first else timedelta(0)) for name in names
    }
    budgets = {name: budget(platform.slo, [o for o in found if o.stream == name], now) for name in names}
    return Account(now, shown / timedelta(days=1), platform.slo, told, summaries, budgets)
