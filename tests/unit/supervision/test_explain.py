"""An observation as rows for people."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from k2.registry.observed import Action, Checkpoint, Decision, Driver, DriverState, Head, Observation, QueryStatus, Reading, Verdict, Wanted
from k2.supervision.explain import SOURCES, action, rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = {"trades": {"0": 7, "1": 9}}
SEEN = Observation(
    "bronze_binance",
    NOW,
    Reading(NOW, Wanted("running", 1, 2)),
    Reading(NOW - timedelta(seconds=1.5), Driver(DriverState.RUNNING, 2, memory_mb=812.25)),
    Reading[QueryStatus](NOW, error="ConnectError: refused"),
    Reading(NOW, Checkpoint("q", 3, 3, NOW - timedelta(seconds=4), TOPIC)),
    Reading(NOW, Head(TOPIC, 0, 0.0)),
)


def test_each_source_is_a_row_with_its_age() -> None:
    """In their order; a source that was not asked has none; what is empty is not said, and 0 is not empty."""
    found = {row.source: row for row in rows(SEEN, NOW)}
    assert list(found) == [SOURCES[name] for name in ("wanted", "driver", "status", "checkpoint", "head")]
    assert found["the driver, by the host agent"].age_seconds == 1.5
    assert found["the driver, by the host agent"].text == "state running, fence 2, memory_mb 812.25, how cold"
    assert dict(found["the checkpoint"].fields)["last_commit_at"] == "4 s ago"
    assert dict(found["the head of the source"].fields) == {"position": "trades 0:7 1:9", "lag_rows": "0", "lag_seconds": "0"}


def test_what_could_not_be_read_says_why() -> None:
    """And has no value."""
    row = next(row for row in rows(SEEN, NOW) if row.error)
    assert (row.source, row.fields, row.text) == (SOURCES["status"], (), "could not be read: ConnectError: refused")


def test_older_drivers_and_the_registry_are_rows_too() -> None:
    """When there are any, and when it was asked."""
    found = rows(replace(SEEN, others=(Driver(DriverState.RUNNING, 1),), registry=Reading(NOW, True)), NOW)
    assert [(row.source, row.text) for row in found[-2:]] == [("the schema registry", "answers"), ("an older driver", "state running, fence 1, how cold")]


def test_what_follows_says_when() -> None:
    """What waits, until when; what is due, since when."""
    waits = Decision("s", Verdict.DEAD, Action.WAIT, "it died", not_before=datetime(2026, 1, 1, 3, 4, 5, tzinfo=UTC))
    assert action(waits) == "wait until 03:04:05 UTC"
    assert action(replace(waits, action=Action.START)) == "start since 03:04:05 UTC"
    assert action(replace(waits, not_before=None)) == "wait"
