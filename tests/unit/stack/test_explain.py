"""What `./k2 explain` shows of a stream that keeps dying."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from k2.registry.observed import Action, Death, Decision, Driver, DriverState, Failure, FailureClass, Observation, Reading, Verdict, Wanted
from k2.stack.commands.explain import render

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_deaths_are_shown_with_class_fingerprint_and_records() -> None:
    """The newest first, what is not known left empty."""
    blamed = Failure("ArithmeticException-1", 7, {"trades": {"2": [[40, 41]]}}, True)
    lately = (
        Death(4, 1, NOW - timedelta(seconds=5), FailureClass.QUERY, 70, 2, blamed),
        Death(3, 1, NOW - timedelta(seconds=50), FailureClass.DEPENDENCY, 75, failure=Failure(dependency="kafka")),
    )
    unread = Reading[Any](NOW, error="not read")
    seen = Observation("s", NOW, Reading(NOW, Wanted("running", 1, 4, lately=lately)), Reading(NOW, Driver(DriverState.EXITED, 4)), unread, unread, unread)
    console = Console(width=250, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(render(seen, Decision("s", Verdict.POISONED, Action.NONE, "it failed twice"), NOW))
    lines = captured.get().splitlines()
    (query,) = [line for line in lines if "ArithmeticException-1" in line]
    assert all(word in query for word in ("5 s ago", "query", "70", "7", "trades partition 2 offset 40 to 41"))
    assert any("dependency: kafka" in line for line in lines)
