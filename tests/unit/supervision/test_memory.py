"""Drivers that use nearly all of their memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from k2.probes.changes import ABSENT, Dated
from k2.registry.observed import Driver, Reading
from k2.registry.platform import load_platform
from k2.supervision.memory import LASTS, lasting, limit_mb, over

from .observations import DRIVER, NOW, STREAM

PLATFORM = load_platform()
PLATFORM = PLATFORM.model_copy(update={"streams": {STREAM: PLATFORM.streams[STREAM]}})
LIMIT = limit_mb(PLATFORM, STREAM)


def uses(memory_mb: float | None) -> dict[str, Reading[Driver]]:
    return {STREAM: Reading(NOW, replace(DRIVER, memory_mb=memory_mb))}


def test_only_what_lasts_is_told() -> None:
    """Above the red share of its budget without a break; what is not known for a moment is no break, less is one."""
    since = over({}, uses(LIMIT + 1), PLATFORM, NOW)
    assert since == {STREAM: NOW} and lasting(since, NOW + LASTS / 2) == set()
    silent = Dated[Driver](NOW, {}, ABSENT, "AgentUnavailable: away")
    for unknown in (uses(None), silent):
        assert over(since, unknown, PLATFORM, NOW + LASTS) == since and over({}, unknown, PLATFORM, NOW) == {}
    assert lasting(over(since, uses(LIMIT + 1), PLATFORM, NOW + LASTS), NOW + LASTS) == {STREAM}
    for less in (uses(LIMIT - 1), Dated[Driver](NOW, {}, ABSENT)):
        assert over(since, less, PLATFORM, NOW + LASTS) == {}


def test_a_clock_that_is_set_back_begins_anew() -> None:
    """Nobody is told of what is not known to last."""
    since = over({STREAM: NOW + timedelta(hours=1)}, uses(LIMIT + 1), PLATFORM, NOW)
    assert since == {STREAM: NOW}
