"""Warnings about what an exchange sends, without letting the exchange fill the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

EXCERPT = 200
"""Characters of a frame that a log line shows."""


class BoundedLog:
    """At most `burst` lines per `seconds` and kind; the next line says how many were left out."""

    def __init__(self, logger: logging.Logger, *, burst: int = 5, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._burst, self._seconds, self._clock = logger, burst, seconds, clock
        self._windows: dict[str, tuple[float, int]] = {}

    def warning(self, kind: str, reason: str, frame: str | bytes = "") -> None:
        now = self._clock()
        since, count = self._windows.get(kind, (now, 0))
        left_out = 0
        if now - since >= self._seconds:
            left_out, since, count = max(0, count - self._burst), now, 0
        self._windows[kind] = (since, count + 1)
        if count < self._burst:
            more = f" ({left_out} more were not logged)" if left_out else ""
            self._logger.warning("%s: %s%s %.*r", kind, reason, more, EXCERPT, frame[:EXCERPT])
