"""Tells people of drivers that use nearly all of their memory for long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

import psycopg

from k2.probes.state import StateProbe
from k2.registry.observed import Driver, Reading
from k2.registry.platform import Platform
from k2.state import database, incidents
from k2.supervision.memory import LASTS, lasting, limit_mb, over

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 10.0
"""The host agent measures as often."""
ADVICE = (
    "What to do: streams_control with action restart gives it a new driver and loses nothing. If that comes as far again, raise its memory_mb, "
    "or lower max_rows_per_trigger; ./k2 logs shows the end of its log."
)


class MemoryWatch:
    """Asked by the poll at each tick; looks now and then, and writes only what changes. An earlier poll's incidents are taken over."""

    def __init__(self, platform: Platform, state: StateProbe, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._platform, self._state, self._monotonic = platform, state, monotonic
        self._since: dict[str, datetime] = {}
        self._told: set[str] | None = None
        self._look_at = 0.0

    def look(self, drivers: Mapping[str, Reading[Driver]], now: datetime) -> None:
        """Raises nothing: what could not be written is tried again."""
        if self._monotonic() < self._look_at:
            return
        self._look_at = self._monotonic() + LOOK_EVERY_SECONDS
        try:
            if self._told is None:
                self._told = {key.partition(":")[2] for key in self._state.ask(incidents.open_keys) if key.startswith("memory:")}
                self._since = dict.fromkeys(self._told, now - LASTS)
            self._since = over(self._since, drivers, self._platform, now)
            told = lasting(self._since, now)
            if told != self._told:
                self._state.ask(lambda connection: self._write(connection, told, self._told or (), drivers))
                self._told = told
        except (database.StateUnavailable, psycopg.Error) as error:
            log.error("the memory of the drivers could not be told of: %s", error)

    def _write(self, connection: database.Connection, told: Collection[str], before: Collection[str], drivers: Mapping[str, Reading[Driver]]) -> None:
        with connection.transaction():
            for stream in sorted(set(told).difference(before)):
                driver = drivers[stream].value
                used = f"{driver.memory_mb:.0f}" if driver is not None and driver.memory_mb is not None else "an unknown number"
                budget, limit, minutes = self._platform.streams[stream].memory_mb, limit_mb(self._platform, stream), LASTS.total_seconds() / 60
                detail = f"{used} of {budget} MiB, for {minutes:.0f} minutes above {limit:.0f}.\n{ADVICE}"
                incidents.open_incident(connection, f"memory:{stream}", "page", f"Stream {stream} runs out of memory", detail)
            for stream in sorted(set(before).difference(told)):
                incidents.resolve_incident(connection, f"memory:{stream}", "its driver uses less again, or another one has taken its place")
