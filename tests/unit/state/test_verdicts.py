"""Observations as they are written down and read again."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

from pydantic import TypeAdapter

from k2.registry.observed import Checkpoint, Death, Driver, DriverState, FailureClass, Head, Observation, QueryStatus, Reading, Wanted
from k2.state.verdicts import recorded

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEEN = Observation(
    "bronze_binance",
    NOW,
    Reading(NOW, Wanted("running", 1, 2, lately=(Death(1, 1, NOW, FailureClass.QUERY),))),
    Reading(NOW, Driver(DriverState.RUNNING, 2, started_at=NOW)),
    Reading[QueryStatus](NOW, error="refused"),
    Reading(NOW, Checkpoint("q", 3, 3, NOW, {"trades": {"0": 7}})),
    Reading(NOW, Head({"snapshot_id": 5}, None, None)),
    (Driver(DriverState.RUNNING, 1),),
    Reading(NOW, True),
)


def read(document: object) -> Observation | None:
    """What the database's row with this observation becomes."""
    row = {"stream": "bronze_binance", "verdict": "IDLE", "because": "-", "since": NOW, "seen_at": NOW, "observation": document}
    connection = SimpleNamespace(execute=lambda statement: SimpleNamespace(fetchall=lambda: [row]))
    return recorded(connection)["bronze_binance"].observation  # type: ignore[arg-type]


def test_what_was_written_is_what_is_read() -> None:
    """Each reading, with its types."""
    assert read(TypeAdapter(Observation).dump_python(SEEN, mode="json")) == SEEN


def test_another_version_s_words_are_no_observation() -> None:
    """The verdict stands; the readings cannot be shown."""
    assert read({"stream": "bronze_binance", "seen": "something else"}) is None
