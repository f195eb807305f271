"""When a stream that died may start again, and when its deaths are forgiven."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta

from k2.registry.observed import Checkpoint, Wanted
from k2.registry.platform import Restart

JITTER = 0.2


def backoff(restart: Restart, deaths: int) -> timedelta:
    """The wait after the given number of unforgiven deaths: rises with it, and never above the last step."""
    steps = restart.backoff_seconds
    return timedelta(seconds=steps[min(max(deaths, 1), len(steps)) - 1])


def jitter(stream: str, fence: int) -> float:
    """A factor in 1 ± JITTER that is the same for every watchdog, so that streams of one cause start apart."""
    return 1 + JITTER * (2 * zlib.crc32(f"{stream}#{fence}".encode()) / 0xFFFFFFFF - 1)


def start_not_before(restart: Restart, stream: str, fence: int, deaths: int, died_at: datetime) -> datetime:
    """The earliest moment of the next start of a stream whose driver with this fence died."""
    return died_at + backoff(restart, deaths) * jitter(stream, fence)


def forgivable(restart: Restart, wanted: Wanted, checkpoint: Checkpoint, now: datetime) -> bool:
    """Whether the running launch has committed often and long enough for earlier deaths to count no more."""
    if wanted.deaths == 0 or wanted.ended_at is not None or wanted.first_commit_at is None or wanted.first_commit_batch is None:
        return False
    if checkpoint.last_commit_batch is None:
        return False
    commits = checkpoint.last_commit_batch - wanted.first_commit_batch + 1
    return commits >= restart.forgiven_after.commits and now - wanted.first_commit_at >= timedelta(minutes=restart.forgiven_after.minutes)
