from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from k2.registry.observed import QueryStatus
from status import Board, serve


def test_status_has_the_fields_of_the_model(tmp_path: Path) -> None:
    """/status is a QueryStatus with its times in ISO 8601; ready.json says where it is; other paths are 404."""
    board = Board("bronze_x", 7)
    board.update(query_id="q", batch_id=3, last_event_at=datetime(2026, 11, 21, 7, tzinfo=UTC))
    serve(board, tmp_path)
    root = f"http://127.0.0.1:{json.loads((tmp_path / 'ready.json').read_text())['port']}"
    with urllib.request.urlopen(f"{root}/status", timeout=5) as answer:
        status = json.load(answer)
    assert set(status) == {field.name for field in fields(QueryStatus)}
    assert (status["stream"], status["fence"], status["batch_id"], status["last_event_at"]) == ("bronze_x", 7, 3, "2026-11-21T07:00:00+00:00")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{root}/", timeout=5)


def test_waiting_comes_and_goes() -> None:
    """The phase follows what the driver waits for, and is starting again when no query runs yet."""
    board = Board("s", 1)
    board.wait_for("catalog")
    assert (board.status.phase, board.status.waits_for) == ("waiting", "catalog")
    board.wait_for(None)
    assert (board.status.phase, board.status.waits_for) == ("starting", None)
    board.update(query_id="q", phase="running")
    board.wait_for("schema_registry")
    board.wait_for(None)
    assert board.status.phase == "running"


def test_a_stopping_driver_stays_so() -> None:
    """Events that arrive late do not bring it back to running."""
    board = Board("s", 1)
    board.update(phase="stopping")
    board.update(phase="running", batch_id=4)
    board.wait_for("catalog")
    assert (board.status.phase, board.status.batch_id) == ("stopping", 4)


def test_metrics_of_a_driver_without_batches_say_nothing_of_batches() -> None:
    """A gauge without a value has no sample, instead of a zero that looks measured."""
    samples = {sample.name for metric in Board("s", 1).collect() for sample in metric.samples}
    assert "k2_driver_batch_seconds" not in samples and "k2_driver_last_event_timestamp_seconds" not in samples
    assert {"k2_driver_fence", "k2_driver_waiting", "k2_driver_phase"} <= samples


def test_the_first_batch_has_the_longest_pause_only_until_there_is_another() -> None:
    """It is slow because all is new to its JVM; how long a hang is waited for must not follow from that."""
    board, seen = Board("s", 1), []
    for seconds in (18.0, 2.0, 3.0, 1.0):
        board.batch(datetime.now(UTC), seconds)
        seen.append(board.status.longest_pause_seconds)
    assert seen == [18.0, 2.0, 3.0, 3.0] and board.status.batch_seconds == 1.0


@pytest.mark.parametrize(("finished", "pause"), [([], 20.0), ([5, 11, 18], 7.0), ([12], 12.0), ([-3, 4, 8, 12, 16, 25], 4.0)])
def test_a_long_batch_whose_tasks_finish_has_short_pauses(finished: list[int], pause: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause is from its beginning to its first finished task, from one to the next, or from the last to its end; what lies outside does not count."""
    began, moments = datetime(2026, 11, 21, 7, tzinfo=UTC), iter(finished)
    board = Board("s", 1)
    monkeypatch.setattr("status.datetime", SimpleNamespace(now=lambda _: began + timedelta(seconds=next(moments))))
    for completed in range(len(finished) + 1):
        board.tasks(completed, 1)
    board.batch(began, 20.0)
    assert board.status.longest_pause_seconds == pause
    assert board.status.tasks_at == (began + timedelta(seconds=finished[-1]) if finished else None)


def test_a_batch_that_waited_for_a_dependency_earns_no_patience() -> None:
    """An outage of an hour must not hide the hangs of the next hundred batches."""
    board, began = Board("s", 1), datetime.now(UTC)
    for _ in range(2):
        board.batch(began, 2.0)
    board.wait_for("schema_registry")
    board.wait_for(None)
    board.batch(began, 3600.0)
    assert (board.status.batch_seconds, board.status.longest_pause_seconds) == (3600.0, 2.0)
    board.batch(began, 5.0)
    assert board.status.longest_pause_seconds == 5.0, "the next batch counts again"
    board.wait_for("schema_registry")
    board.batch(began, 4.0)
    board.batch(began, 60.0)
    assert board.status.longest_pause_seconds == 5.0, "it still waits"


def test_tasks_that_finished_in_the_next_batch_are_its_own() -> None:
    """The event of a batch's end comes when the next one may have begun."""
    board, began = Board("s", 1), datetime.now(UTC)
    board.tasks(0, 1)
    board.tasks(1, 0)
    board.batch(began - timedelta(seconds=20), 20.0)
    board.batch(began, 0.0)
    board.batch(began, 3600.0)
    assert 3590 < (board.status.longest_pause_seconds or 0) < 3600


def test_rows_are_counted_per_table() -> None:
    """Counters add up over batches."""
    board = Board("s", 1)
    for rows in (5, 6):
        board.count("silver_x", rows)
    board.count("dlq", 1)
    (rows,) = (metric for metric in board.collect() if metric.name == "k2_driver_rows")
    assert {sample.labels["table"]: sample.value for sample in rows.samples} == {"silver_x": 11, "dlq": 1}
