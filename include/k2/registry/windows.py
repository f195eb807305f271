"""A maintenance window: a time in which people are not told of incidents at once. A plain value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Window:
    id: int
    scope: str
    """A stream, a layer (bronze, silver) or all."""
    starts_at: datetime
    ends_at: datetime
    who: str
    reason: str

    def open_at(self, now: datetime) -> bool:
        return self.starts_at <= now < self.ends_at
