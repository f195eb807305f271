"""Drivers that use nearly all of their memory for long, before something ends them for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from k2.registry.observed import Driver, DriverState, Reading
from k2.registry.platform import Platform

LASTS = timedelta(minutes=10)
"""A large batch, or a heap before its collection, takes as much for a shorter time."""


def limit_mb(platform: Platform, stream: str) -> float:
    """The red share of a stream's budget, MiB."""
    return platform.streams[stream].memory_mb * platform.thresholds.memory_percent.red / 100


def over(before: Mapping[str, datetime], drivers: Mapping[str, Reading[Driver]], platform: Platform, now: datetime) -> dict[str, datetime]:
    """Since when each driver has used more than its limit. One whose memory is not known stays as it was."""
    since = {}
    for stream in platform.streams:
        driver = drivers[stream].value
        used = driver.memory_mb if driver is not None else None
        unknown = driver is None or (used is None and driver.state is DriverState.RUNNING)
        if (unknown and stream in before) or (used is not None and used > limit_mb(platform, stream)):
            since[stream] = min(before.get(stream, now), now)
    return since


def lasting(since: Mapping[str, datetime], now: datetime) -> set[str]:
    """Those of which people are to be told."""
    return {stream for stream, moment in since.items() if now - moment >= LASTS}
