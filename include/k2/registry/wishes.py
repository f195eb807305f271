"""What a person may ask of the streams, and how a stream stands when somebody asks: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Wish(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    ADOPT = "adopt"
    """Start it from its checkpoint as that is now, though it is not what was seen before."""
    REBUILD = "rebuild"
    """Start it from a checkpoint that is made again from its tables."""
    RETIRE = "retire"
    """Put its checkpoint into the quarantine: nobody wants it any more."""
    RESTORE = "restore"
    """Put a checkpoint back that lies in the quarantine, or a backup."""
    SKIP_POISON = "skip-poison"
    """Send the records that a POISONED stream fails at to the dead-letter table, and start it."""
    UPGRADE = "upgrade"
    """Restart it with the code and configuration of now, once a shadow has shown that its checkpoint fits them."""

    @property
    def desired(self) -> str:
        return "stopped" if self in (Wish.STOP, Wish.RETIRE, Wish.RESTORE) else "running"

    @property
    def moves(self) -> bool:
        """Whether it moves a checkpoint, of a stream that is stopped and stays so, or of none."""
        return self in (Wish.RETIRE, Wish.RESTORE)


class Selection(StrEnum):
    """Words of the form that name several streams."""

    ALL = "all"
    BRONZE = "bronze"
    SILVER = "silver"


@dataclass(frozen=True)
class Standing:
    """How one stream stands, by the database alone."""

    stream: str
    desired: str
    generation: int
    fence: int
    runs: bool
    """A driver was launched and nobody has seen it end."""
    verdict: str | None = None
    because: str = ""
    seen_at: datetime | None = None
    """When the watchdog last judged it."""
    query_id: str | None = None
    """The identity and the highest committed batch that its checkpoint was ever seen with."""
    batch: int | None = None
    lag_rows: int | None = None
    retired: str | None = None
    """That its checkpoint is retired, since when and by whom."""

    def as_audit(self) -> dict[str, Any]:
        """What the audit log keeps of it."""
        kept = ("desired", "generation", "fence", "verdict", "query_id", "batch")
        return {name: getattr(self, name) for name in kept}
