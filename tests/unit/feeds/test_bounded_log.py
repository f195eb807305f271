"""Warnings are limited per kind and time."""

from __future__ import annotations

import logging
from unittest.mock import create_autospec

from k2.feeds.bounded_log import EXCERPT, BoundedLog


def test_a_burst_is_cut_and_counted() -> None:
    """Of seven warnings three are written; the first one of the next minute says that four were left out."""
    logger, now = create_autospec(logging.Logger, instance=True), [0.0]
    notes = BoundedLog(logger, burst=3, seconds=60, clock=lambda: now[0])
    for _ in range(7):
        notes.warning("malformed frame", "not JSON", b"x" * 5000)
    assert logger.warning.call_count == 3
    now[0] = 61
    notes.warning("malformed frame", "not JSON")
    assert "(4 more were not logged)" in str(logger.warning.call_args)


def test_kinds_do_not_share_a_limit() -> None:
    """A flood of one kind hides no other kind, and a frame is shown in part only."""
    logger = create_autospec(logging.Logger, instance=True)
    notes = BoundedLog(logger, burst=1)
    for kind in ("a", "a", "b"):
        notes.warning(kind, "reason", b"x" * 5000)
    assert [call.args[1] for call in logger.warning.call_args_list] == ["a", "b"]
    assert all(len(call.args[-1]) == EXCERPT for call in logger.warning.call_args_list)
