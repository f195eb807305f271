"""Maintenance windows as people ask for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from k2.airflow.control import RequestRefused
from k2.alerts import muting
from k2.registry.runtime import Runtime
from k2.registry.windows import Window
from k2.state import audit, windows
from k2.state.database import connect
from k2.supervision.wishes import select


def set_window(runtime: Runtime, params: dict[str, Any], *, who: str, request: str) -> list[Window]:
    """Open the window that the form asks for, or close those of its streams. Raises RequestRefused; then nothing was changed."""
    scope, now = params["stream"], datetime.now(UTC)
    try:
        select(scope, runtime.platform)
    except ValueError as error:
        raise RequestRefused(str(error)) from None
    with connect(runtime, "control") as connection:
        if params["action"] == "open":
            starts_at = _moment(params["starts"]) or now
            if why := muting.objection(starts_at, params["hours"], runtime.platform.control.window_hours, now):
                raise RequestRefused(f"No window was opened. {why}")
            found = [windows.open_window(connection, scope, starts_at, starts_at + timedelta(hours=params["hours"]), who=who, reason=params["reason"])]
        else:
            open_ones = {w.scope for w in windows.unfinished(connection) if w.ends_at > now}
            found = windows.close_windows(connection, scope, now)
            if not found:
                others = f"use one of {', '.join(sorted(open_ones))}" if open_ones else "there is none at all"
                raise RequestRefused(f"stream: no window of {scope!r} is open or to come: {others}")
        for window in found:
            after = {"window": window.id, "from": window.starts_at.isoformat(), "until": window.ends_at.isoformat()}
            action = f"{params['action']} window"
            audit.record(connection, who=who, action=action, target=scope, reason=params["reason"], before={}, after=after, request=request)
    return found


def _moment(text: str | None) -> datetime | None:
    """An ISO time; one without a zone is UTC."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RequestRefused(f"starts: {text!r} is no time: write it as 2026-11-21T22:00:00+00:00, or leave it empty for now") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
