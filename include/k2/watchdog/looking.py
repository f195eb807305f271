"""A look at the streams: every source read once, each stream judged, the verdicts recorded."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from k2.probes import Observer
from k2.probes.observer import Progress, compose
from k2.probes.reading import failed
from k2.registry.runtime import Runtime
from k2.state import database, incidents, verdicts, watchers
from k2.supervision.verdicts import ACTS, HUNG
from k2.watchdog import budgets
from k2.watchdog.judged import Look, dated, judge_all
from k2.watchdog.recording import record_looks, silences

log = logging.getLogger(__name__)

POLL_KEY = "watchers:poll"
POLL_LATE_SECONDS = 60.0
"""Twelve of its reports."""
OF_A_STREAM = frozenset({"stream", "held", "certificate", "budget", "memory"})
"""Kinds of incidents that concern one stream."""
RUNS_APART_SECONDS = 180.0
"""A run that comes later after the one before is the first of a platform that was started just now: its poll may be starting too."""
POLL_ADVICE = "What to do: ./k2 status shows whether airflow_triggerer runs, ./k2 logs airflow_triggerer what the poll says."


def urgent(runtime: Runtime) -> list[Look]:
    """The streams that need an action, recorded: judged by what is wanted and by their drivers alone.

    No broker that is away and no frozen driver delays it, as either does a look at everything. A driver that lives is left
    to that look: whether it hangs is not known without its query's readings.
    """
    with Observer(runtime) as observer:
        names = list(runtime.platform.streams)
        at = datetime.now(UTC)
        observations = compose(at, observer.quick(names), {name: not_read(at) for name in names})
        now = datetime.now(UTC)
        looks = judge_all(runtime, observations.values(), now)
        return _recorded(observer, [found for found in looks if found.decision.action in ACTS and found.decision.verdict not in HUNG], now)


def look(runtime: Runtime) -> list[Look]:
    """Observe every stream, judge it and record the verdict. A source that is silent makes verdicts unknown, it raises nothing."""
    with Observer(runtime) as observer:
        observations = observer.observe()
        now = datetime.now(UTC)
        looks = judge_all(runtime, observations.values(), now)
        looks = _recorded(observer, looks, now)
        try:
            observer.state.ask(mind_the_poll)
            observer.state.ask(lambda connection: forget_undeclared(connection, observer.runtime.platform.streams))
            observer.state.ask(lambda connection: watchers.looked(connection, "watchdog", silences(observations.values())))
            observer.state.ask(lambda connection: budgets.record(connection, runtime, now))
        except database.StateUnavailable as error:
            log.error("the watchdog could not record that it lives: %s", error)
    return looks


def mind_the_poll(connection: database.Connection) -> None:
    """Tell people of a poll that does not look any more, and of its return. One that has only just begun to be watched is left alone."""
    ages = watchers.ages(connection)
    if "poll" not in ages:
        watchers.failing(connection, "poll", "it has not looked yet")
        return
    age, why = ages["poll"]
    if age < POLL_LATE_SECONDS:
        incidents.resolve_incident(connection, POLL_KEY, "the poll looks again")
    elif ages.get("watchdog", (math.inf, ""))[0] < RUNS_APART_SECONDS:
        detail = f"It has not looked for {age:.0f} s{f': {why}' if why else ''}. Runs of streams_watch look once a minute in its stead.\n{POLL_ADVICE}"
        incidents.open_incident(connection, POLL_KEY, "ticket", "The poll of the streams does not look", detail)


def forget_undeclared(connection: database.Connection, names: Collection[str]) -> None:
    """End the incidents of streams that are not declared any more: nobody looks at those."""
    for key in (incident["key"] for incident in incidents.open_incidents(connection)):
        kind, _, stream = key.partition(":")
        if kind in OF_A_STREAM and stream not in names:
            incidents.resolve_incident(connection, key, f"{stream} is not declared any more")


def not_read(at: datetime) -> Progress:
    """What is known of a query that was not asked for. Dated long ago: that nobody asked is no answer."""
    unread = failed(at - timedelta(days=1), LookupError("it was not read yet"))
    return Progress(unread, unread, unread)


def _recorded(observer: Observer, looks: list[Look], now: datetime) -> list[Look]:
    """The looks, each death dated by whoever saw it first, after they were written down if that was possible."""
    try:
        known = observer.state.ask(verdicts.dead_since)
        looks = [dated(found, known) for found in looks]
        record_looks(observer.state, observer.runtime, looks, now)
    except database.StateUnavailable as error:
        log.error("the verdicts could not be recorded: %s", error)
    return looks
