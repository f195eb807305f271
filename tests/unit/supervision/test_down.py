"""Which streams went down at one time, and from when on a restart is late."""

from __future__ import annotations

from k2.registry.observed import Action, Decision, Unmended, Verdict
from k2.supervision.down import PAGE_AFTER, at_one_time, still_down, together

from .observations import NOW, ago

DOWN = {"a": ago(100), "b": ago(60), "c": ago(41), "d": ago(30)}


def decision(stream: str, verdict: Verdict = Verdict.DEAD) -> Decision:
    return Decision(stream, verdict, Action.START, "-")


def test_what_died_within_a_minute_died_together() -> None:
    """Before or after; a hang is of its own, and so is a stream of which no outage is known."""
    assert together(decision("a"), DOWN) == ["b", "c"]
    assert together(decision("d"), DOWN) == ["b", "c"]
    assert together(decision("a", Verdict.HUNG_SOURCE), DOWN) == [] and together(decision("x"), DOWN) == []


def test_an_incident_stands_until_all_that_it_tells_of_are_back() -> None:
    """Not for those of another time, and not for those that have an incident of their own by now."""
    assert still_down(ago(60), DOWN, (), NOW) and still_down(ago(60), DOWN, ("a", "b"), NOW)
    assert not still_down(ago(60), DOWN, tuple(DOWN), NOW) and not still_down(ago(60), {}, (), NOW)
    assert not still_down(ago(200), DOWN, (), NOW)
    assert not still_down(NOW - PAGE_AFTER, {"a": NOW - PAGE_AFTER}, (), NOW), "it pages by now"


def test_groups_begin_with_their_oldest() -> None:
    """A chain of deaths, each within a minute of the one before, does not grow for ever."""
    outages = [Unmended(stream, at, "DEAD", "-") for stream, at in DOWN.items()]
    assert [[o.stream for o in group] for group in at_one_time(outages)] == [["a", "b", "c"], ["d"]]
    assert at_one_time([]) == []
