"""The page for streams that stay down, of which people know nothing but a ticket so far."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from k2.state import incidents, outages
from k2.state.database import Connection
from k2.supervision.down import PAGE_AFTER, at_one_time

KIND = "down"
ADVICE = (
    "What to do: open the last run of streams_watch, whose log says what it saw and did, and the driver's log (./k2 logs STREAM). The watchdog goes on trying."
)


def told(keys: Iterable[str]) -> set[str]:
    """The streams of which an open incident tells that they stay down."""
    return {stream for key in keys if _is_ours(key) for stream in _streams(key)}


def record(connection: Connection, names: Iterable[str], now: datetime) -> None:
    """One page for all of these streams that went down at one time and are not back; it stands until the last of them is."""
    ours = [key for key in incidents.open_keys(connection) if _is_ours(key)]
    stand = set()
    for members in at_one_time(outages.unmended(connection, names)):
        if now - members[0].detected_at < PAGE_AFTER:
            continue
        streams = [outage.stream for outage in members]
        key = next((key for key in ours if _streams(key).issuperset(streams)), f"{KIND}:{':'.join(streams)}")
        stand.add(key)
        title = f"Stream {streams[0]} stays down" if len(streams) == 1 else f"Streams {', '.join(streams)} stay down"
        detail = "\n".join([*(f"{o.stream}, since {o.detected_at:%H:%M:%S} UTC: {o.verdict}: {o.because}" for o in members), ADVICE])
        incidents.open_incident(connection, key, "page", title, detail)
        for stream in streams:
            incidents.resolve_incident(connection, incidents.stream_key(stream), "it stays down, which is told of its own")
    for key in set(ours) - stand:
        incidents.resolve_incident(connection, key, "it works again, is waited for, or is held, which is told of its own")


def _is_ours(key: str) -> bool:
    return key.startswith(f"{KIND}:")


def _streams(key: str) -> set[str]:
    return set(key.split(":")[1:])
