"""A batch that takes many triggers while its tasks finish one after the other: a driver that gets little of the processor."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from k2.chaos.place import Place

TRIGGERS = 5
RUNS_SECONDS, RESTS_SECONDS = 0.05, 0.95
LIMIT_SECONDS = 600.0


def slow_batch(place: Place, stream: str, say: Callable[[str], None]) -> float:
    """Stop and continue the stream's driver by turns, in one batch after the other, until one has taken five triggers.

    Returns its seconds from plan to commit. Every second the driver has the processor for a moment: its tasks go on, and it
    answers. Raises TimeoutError when no batch took so long.
    """
    trigger = place.runtime.platform.streams[stream].trigger_seconds
    folder = place.runtime.checkpoint(stream)
    deadline, runs = time.monotonic() + LIMIT_SECONDS, RUNS_SECONDS
    while time.monotonic() < deadline:
        if not place.in_batch(stream, 4 * trigger):
            continue
        tail = place.tail(stream)
        batch = tail.last_offset_batch if tail else None
        seconds = _through(place, stream, batch, runs)
        done = folder / "commits" / str(batch)
        if done.exists():
            seconds = done.stat().st_mtime - (folder / "offsets" / str(batch)).stat().st_mtime
        say(f"batch {batch} of {stream} took {seconds:.0f} s, its trigger is {trigger} s")
        if seconds >= TRIGGERS * trigger:
            return seconds
        runs = max(0.005, runs / 2)
    raise TimeoutError(f"no batch of {stream} took {TRIGGERS * trigger} s")


def _through(place: Place, stream: str, batch: int | None, runs: float) -> float:
    """Let the driver rest by turns while this batch is under way."""
    members, began = place.driver(stream)[1], time.monotonic()
    try:
        while (tail := place.tail(stream)) and tail.in_flight and tail.last_offset_batch == batch and time.monotonic() - began < LIMIT_SECONDS:
            for process in members:
                process.send(signal.SIGSTOP)
            time.sleep(RESTS_SECONDS)
            for process in members:
                process.send(signal.SIGCONT)
            time.sleep(runs)
    finally:
        for process in members:
            process.send(signal.SIGCONT)
    return time.monotonic() - began
