"""What the watchdog writes down of outages: when they began, when the stream had recovered, when it had caught up."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.registry.observed import Outage
from k2.registry.runtime import Runtime
from k2.state import outages
from k2.state.database import Connection
from k2.supervision.outages import follow, last_good
from k2.watchdog.judged import Look


def record(connection: Connection, runtime: Runtime, looks: Iterable[Look], now: datetime) -> None:
    """Follow the outages of the streams that were looked at; before their verdicts are written down, for the last ones are read.

    A look that shows no trouble where there was none costs its share of one query.
    """
    known = {look.decision.stream: look for look in looks}
    followed = outages.followed(connection)
    for stream, look in known.items():
        change = follow(followed.get(stream), look.observation, look.decision, runtime.platform.streams[stream], now)
        if change.followed is not None:
            outages.change(connection, change.followed)
        if change.opened is not None:
            outages.begin(connection, _dated(connection, runtime, look, change.opened))


def _dated(connection: Connection, runtime: Runtime, look: Look, outage: Outage) -> Outage:
    """The outage with the last moment at which the stream did its work, read from its checkpoint if that can be read."""
    wanted, checkpoint = look.observation.wanted.value, look.observation.checkpoint.value
    committed_at = checkpoint.last_commit_at if checkpoint is not None else None
    with suppress(CheckpointUnreadable):
        committed_at = read_tail(runtime.checkpoint(outage.stream)).last_commit_at or committed_at
    asked_at = wanted.intent_at if wanted is not None and wanted.first_commit_at is None else None
    return replace(outage, good_at=last_good(outage.detected_at, committed_at, outages.seen_idle(connection, outage.stream), asked_at))
