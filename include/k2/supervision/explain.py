"""An observation as rows for people: what each source said, how old that is, and what could not be read; and what follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from k2.registry.observed import Action, Decision, Observation, Reading

SOURCES = {
    "wanted": "what is wanted",
    "driver": "the driver, by the host agent",
    "status": "the driver's own word",
    "checkpoint": "the checkpoint",
    "head": "the head of the source",
    "registry": "the schema registry",
}
"""Each reading of an observation, as it is called."""
TABLES = frozenset({"lately"})
"""Fields that are tables of their own."""


@dataclass(frozen=True)
class Row:
    source: str
    age_seconds: float | None
    """None where the row says when by itself."""
    fields: tuple[tuple[str, str], ...]
    """What was read, by name; only what holds something."""
    error: str | None = None
    """Why it could not be read."""

    @property
    def text(self) -> str:
        return f"could not be read: {self.error}" if self.error is not None else ", ".join(f"{name} {value}".strip() for name, value in self.fields)


def action(decision: Decision) -> str:
    """What follows from a verdict, and when."""
    if decision.not_before is None:
        return str(decision.action)
    return f"{decision.action} {'until' if decision.action is Action.WAIT else 'since'} {decision.not_before:%H:%M:%S} UTC"


def rows(observation: Observation, now: datetime) -> list[Row]:
    """One row per source that was asked, in the order of SOURCES, then one per older driver that still runs."""
    found = []
    for name, source in SOURCES.items():
        reading: Reading[Any] | None = getattr(observation, name)
        if reading is not None:
            age = max(0.0, (now - reading.at).total_seconds())
            found.append(Row(source, age, () if reading.error is not None else _fields(reading.value, now), reading.error))
    return found + [Row("an older driver", None, _fields(driver, now)) for driver in observation.others]


def _fields(value: Any, now: datetime) -> tuple[tuple[str, str], ...]:
    if value is True:
        return (("", "answers"),)
    return tuple((name, _words(field, now)) for name, field in asdict(value).items() if name not in TABLES and not _empty(field))


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", (), {}, [])


def _words(value: Any, now: datetime) -> str:
    """Moments as their age, offsets by partition, anything else as it is."""
    if isinstance(value, datetime):
        return f"{(now - value).total_seconds():.0f} s ago"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        if any(isinstance(inner, Mapping) for inner in value.values()):
            return "; ".join(f"{key} {_words(inner, now)}" for key, inner in value.items() if not _empty(inner))
        return " ".join(f"{key}:{inner}" for key, inner in value.items() if not _empty(inner))
    return str(value)
