"""Tells people when the error budget of a stream burns too fast, and when it does no more."""

from __future__ import annotations

from datetime import datetime, timedelta

from k2.registry.runtime import Runtime
from k2.state import incidents, outages
from k2.state.database import Connection
from k2.supervision.budget import budget, minutes


def record(connection: Connection, runtime: Runtime, now: datetime) -> None:
    """Open a ticket for each stream whose budget burns too fast, resolve that of every other."""
    slo = runtime.platform.slo
    found = outages.outages(connection, since=now - timedelta(days=slo.window_days))
    for stream in runtime.platform.streams:
        spent = budget(slo, [outage for outage in found if outage.stream == stream], now)
        key = f"budget:{stream}"
        if spent.burning:
            title = f"The error budget of {stream} burns too fast"
            detail = (
                f"{spent.burning}. {minutes(spent.left_seconds)} min are left of {slo.window_days} days at {slo.target_percent:g} %.\n"
                f"What to do: ./k2 ledger {stream} shows what took the time. Mend what recurs before you change anything else in this stream."
            )
            incidents.open_incident(connection, key, "ticket", title, detail)
        else:
            incidents.resolve_incident(connection, key, f"{minutes(spent.left_seconds)} min are left, and none is lost at the moment")
