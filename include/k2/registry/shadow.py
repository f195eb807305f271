"""What a shadow found: a plain value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LIMIT_SECONDS = 240.0
"""A trial that has not ended by then is killed, and nothing is known."""


class Outcome(StrEnum):
    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"
    UNKNOWN = "unknown"
    """It could not be tried to the end. Nothing follows from that, least of all an upgrade."""


@dataclass(frozen=True)
class Shadow:
    """One trial of the code and configuration of now on a copy of a stream's checkpoint."""

    stream: str
    outcome: Outcome
    because: str
    rows: int = 0
    """Rows of the source that went through the whole plan. 0: the plan was accepted, and there was nothing to read."""
    seconds: float = 0.0
    made_of: str = ""
    """Fingerprint of the code and configuration that were tried."""
