"""The leaky bucket that stops a crash loop.

Each death pours one drop in. Time leaks it empty, and so does work: a launch that committed often enough has paid for
its death, so a stream that gets on is never held however often somebody kills it. A kill from outside weighs half,
because the driver did nothing wrong that is known; it may still be the kernel that ends it for its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from k2.registry.observed import Death
from k2.registry.platform import Restart
from k2.supervision.failures import UNCOUNTED

KILLED = (-9, -15)
KILLED_WEIGHS = 0.5


def weight(death: Death) -> float:
    if death.kind in UNCOUNTED:
        return 0.0
    return KILLED_WEIGHS if death.exit_code in KILLED else 1.0


def level(restart: Restart, deaths: Sequence[Death], generation: int, now: datetime, commits: int = 0) -> float:
    """How full the bucket is, after `commits` of the launch that runs.

    Deaths of launches that an earlier request had asked for do not count: a person has looked since.
    """
    counted = sorted((d for d in deaths if d.generation >= generation and d.at <= now), key=lambda d: d.at)
    full, before = 0.0, None
    for death in counted:
        if before is not None:
            full = max(0.0, full - _leaked(restart, death.at - before))
        full = max(0.0, full - death.commits / restart.forgiven_after.commits) + weight(death)
        before = death.at
    if before is None:
        return 0.0
    return max(0.0, full - commits / restart.forgiven_after.commits - _leaked(restart, now - before))


def closed_until(restart: Restart, deaths: Sequence[Death], generation: int, now: datetime, commits: int = 0) -> datetime | None:
    """When there is room for one more death; None when there is room now."""
    too_much = level(restart, deaths, generation, now, commits) - (restart.breaker.deaths - 1)
    if too_much <= 0:
        return None
    return now + too_much / restart.breaker.deaths * timedelta(minutes=restart.breaker.minutes)


def _leaked(restart: Restart, time: timedelta) -> float:
    return restart.breaker.deaths * (time / timedelta(minutes=restart.breaker.minutes))
