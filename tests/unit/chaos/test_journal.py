"""What a run has done survives it."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.chaos.journal import Header, Journal, Result
from k2.stack.errors import K2Error

HEADER = Header(7, 50, ("disk of the checkpoints full",))
RESULT = Result(1, ("driver killed",), ("bronze_a",), "SIGKILL 1", 0.4, "bronze_a DEAD", 5.2, "bronze_a #2 spare")


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Header, rounds, and whether it is over."""
    journal = Journal(tmp_path)
    journal.begin(HEADER)
    journal.add(RESULT)
    assert journal.read() == (HEADER, [RESULT], False)
    journal.finish(True)
    assert journal.read() == (HEADER, [RESULT], True)


def test_no_run_is_an_error_with_the_fix(tmp_path: Path) -> None:
    """There is nothing to resume."""
    with pytest.raises(K2Error, match=r"chaos.jsonl holds no run .* start one with ./k2 chaos"):
        Journal(tmp_path).read()
