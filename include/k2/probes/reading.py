"""The one place where a source's failure becomes a reading."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from k2.registry.observed import Reading

T = TypeVar("T")


def read(source: Callable[[], T]) -> Reading[T]:
    """What the source says, dated at the moment it was asked; whatever it raises becomes the reading's error."""
    at = datetime.now(UTC)
    try:
        return Reading(at, source())
    except Exception as error:
        return failed(at, error)


def failed(at: datetime, error: Exception) -> Reading[T]:
    return Reading(at, error=f"{type(error).__name__}: {error}", silent=getattr(error, "dependency", None))
