"""What people are told of now, and what waits for the end of a maintenance window. Pure.

A window mutes and never blinds: incidents are opened, resolved and kept as ever. What began during a window and concerns
its streams is told in one digest when it ends; a page that is still open then is told as a page. What people know of
already is followed to its end at once; that it still stands is not repeated while a window is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from k2.alerts.due import Due
from k2.registry.windows import Window

NEVER_MUTED = frozenset({"dag", "watchers"})
"""Kinds of incidents that say that the supervision itself fails: a window is for the streams."""
SHARED = "down"
"""The kind of incident that tells of several streams: it is muted only if all of them are."""
SHORTEST = timedelta(minutes=5)


News = tuple[dict[str, Any], Due]
"""A row of k2.incidents, and what is to be told of it."""
Happened = tuple[dict[str, Any], bool]
"""A row of k2.incidents, and whether its place in a digest is all that people have to hear of it now."""


@dataclass(frozen=True)
class Telling:
    """What is to be told now, in this order: the digests of windows that have ended, then incidents one by one."""

    digests: list[tuple[Window, list[Happened]]]
    incidents: list[News]

    def __len__(self) -> int:
        return len(self.digests) + len(self.incidents)


def covers(window: Window, key: str, layers: Mapping[str, str]) -> bool:
    """Whether an incident of this key concerns what the window is about. `layers`: each stream's type."""
    kind, *subjects = key.split(":")
    if kind in NEVER_MUTED:
        return False
    if window.scope == "all":
        return True
    among = all if kind == SHARED else any
    return among(window.scope in (subject, layers.get(subject)) for subject in subjects)


def plan(news: Sequence[News], windows: Sequence[Window], layers: Mapping[str, str], now: datetime) -> Telling:
    """Of what people do not know and of the windows that are unfinished: what is to be told now."""
    ended = [window for window in windows if window.ends_at <= now]
    mine: dict[int, list[Happened]] = {window.id: [] for window in ended}
    alone = []
    for incident, what in news:
        about = [window for window in windows if covers(window, incident["key"], layers)]
        over = [window for window in about if _began_in(window, incident)]
        muted = any(window.open_at(now) for window in (about if what is Due.REMINDER else over))
        pages = incident["severity"] == "page" and incident["resolved_at"] is None
        for window in over:
            if window.ends_at <= now:
                mine[window.id].append((incident, not muted and not pages))
        if not muted and (not over or pages):
            alone.append((incident, what))
    return Telling([(window, mine[window.id]) for window in ended], alone)


def _began_in(window: Window, incident: dict[str, Any]) -> bool:
    """Whether it began while the window was open, and people know nothing of it."""
    return incident["told_opened_at"] is None and window.starts_at <= incident["opened_at"] < window.ends_at


def objection(starts_at: datetime, hours: float, longest_hours: float, now: datetime) -> str | None:
    """Why a window makes no sense: field, value, fix. None when it does."""
    length = timedelta(hours=hours)
    if hours > longest_hours:
        return f"hours: {hours:g} is more than {longest_hours:g}, the longest window (control.window_hours of platform.yaml): ask for less, and again later"
    if length < SHORTEST:
        return f"hours: {hours:g} is less than five minutes: ask for at least 0.1"
    if starts_at + length <= now:
        return f"starts: {starts_at:%Y-%m-%d %H:%M} UTC for {hours:g} h is over already: leave it empty for now, or name a later time"
    if starts_at - now > timedelta(days=31):
        return f"starts: {starts_at:%Y-%m-%d %H:%M} UTC is more than a month away: name a time within a month"
    return None
