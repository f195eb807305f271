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


def since(connection: Connection) -> dict[str, datetime]:
    """Since when each stream of which an outage has not ended has been seen not to work."""
    return {stream: outage.detected_at for stream, outage in outages.followed(connection).items() if outage.recovered_at is None}


def record(connection: Connection, names: Iterable[str], now: datetime) -> None:
    """One page for all of these streams that went down at one time and are not back."""
    pages = set()
    for members in at_one_time(outages.unmended(connection, names, before=now - PAGE_AFTER)):
        key = f"{KIND}:{members[0].stream}"
        pages.add(key)
        several = len(members) > 1
        title = f"Stream{'s' if several else ''} {', '.join(o.stream for o in members)} stay{'' if several else 's'} down"
        detail = "\n".join([*(f"{o.stream}, since {o.detected_at:%H:%M:%S} UTC: {o.verdict}: {o.because}" for o in members), ADVICE])
        incidents.open_incident(connection, key, "page", title, detail)
        for outage in members:
            incidents.resolve_incident(connection, incidents.stream_key(outage.stream), "it stays down, which is told of its own")
    for key in incidents.open_keys(connection).keys() - pages:
        if key.partition(":")[0] == KIND:
            incidents.resolve_incident(connection, key, "it works again, is waited for, or is held, which is told of its own")
