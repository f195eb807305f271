"""What could be expired, and what holds it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.maintenance.facts import Files, Floor, Snapshot, TableFacts
from k2.maintenance.plan import Outcome, plan

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def facts(count: int, *, days_each: float = 1.0, refs: dict[str, int] | None = None, query_ids: dict[int, str] | None = None) -> TableFacts:
    """A table with snapshots 1..count, the newest at NOW, each `days_each` older than the next."""
    history = [
        Snapshot(n, n - 1 if n > 1 else None, NOW - timedelta(days=days_each * (count - n)), "append", (query_ids or {}).get(n)) for n in range(1, count + 1)
    ]
    return TableFacts("t", "file:///t/metadata/1.json", 1, history, {"main": count} | (refs or {}), Files(0, 0, 0))


def test_missing_table_is_skipped() -> None:
    """A table that nobody wrote yet is no error."""
    assert plan(None, "t", now=NOW, days=7, keep=100, floors=[]).outcome is Outcome.SKIPPED


@pytest.mark.parametrize("count", [1, 99, 100])
def test_below_minimum(count: int) -> None:
    """No more than `keep` snapshots: left alone, whatever their age."""
    made = plan(facts(count), "t", now=NOW, days=7, keep=100, floors=[])
    assert (made.outcome, made.reason, made.would_expire) == (Outcome.SKIPPED, "below_minimum_100", ())


def test_age_decides_when_enough_stay() -> None:
    """Of 30 daily snapshots, 22 are older than 7 days, and 5 are to be kept: the 22 could go."""
    made = plan(facts(30), "t", now=NOW, days=7, keep=5, floors=[])
    assert (made.outcome, made.would_expire, made.due) == (Outcome.WOULD_EXPIRE, tuple(range(1, 23)), 22)
    assert made.oldest_due_hours == 29 * 24


def test_keep_decides_when_too_few_would_stay() -> None:
    """min(eligible, count - keep): with 20 to be kept, only 10 of the 22 go."""
    assert plan(facts(30), "t", now=NOW, days=7, keep=20, floors=[]).would_expire == tuple(range(1, 11))


def test_young_table_has_nothing_due() -> None:
    """Many snapshots, none old."""
    assert plan(facts(200, days_each=0.01), "t", now=NOW, days=7, keep=100, floors=[]).outcome is Outcome.NOTHING_DUE


def test_reader_keeps_its_snapshot_and_all_after_it() -> None:
    """A stream at snapshot 4 needs 4: only what is before it could go."""
    made = plan(facts(30), "t", now=NOW, days=7, keep=5, floors=[Floor("silver_binance", 4)])
    assert (made.would_expire, made.held_by) == ((1, 2, 3), ("silver_binance",))


def test_reader_at_the_oldest_holds_everything() -> None:
    """Something is due and nothing may go."""
    made = plan(facts(30), "t", now=NOW, days=7, keep=5, floors=[Floor("silver_binance", 1)])
    assert (made.outcome, made.held_by) == (Outcome.HELD, ("silver_binance",))


@pytest.mark.parametrize("floor", [Floor("silver_binance", None, "unreadable"), Floor("silver_binance", 999)])
def test_unknown_position_refuses(floor: Floor) -> None:
    """A position that cannot be read, or is not in the history, is never taken for 'needs nothing'."""
    made = plan(facts(30), "t", now=NOW, days=7, keep=5, floors=[floor])
    assert (made.outcome, made.would_expire) == (Outcome.REFUSED, ())
    assert "silver_binance" in made.reason


def test_writer_keeps_its_newest_snapshot() -> None:
    """A query whose last commit is snapshot 6 looks for it after a crash."""
    made = plan(facts(30, query_ids={2: "old", 6: "old"}), "t", now=NOW, days=7, keep=5, floors=[])
    assert (made.would_expire, made.held_by) == ((1, 2, 3, 4, 5), ("writer old",))


def test_tag_is_spared_and_named() -> None:
    """A tagged snapshot stays, those around it may go."""
    made = plan(facts(30, refs={"month_end": 3}), "t", now=NOW, days=7, keep=5, floors=[])
    assert 3 not in made.would_expire and {2, 4} <= set(made.would_expire)
    assert made.held_by == ("tag month_end",)


def test_clock_that_ran_ahead_ends_the_prefix() -> None:
    """A young timestamp in the middle of the history stops the cut there, so the history never gets a hole."""
    table = facts(30)
    skewed = [s if s.id != 5 else Snapshot(5, 4, NOW, "append") for s in table.snapshots]
    made = plan(TableFacts("t", "m", 1, skewed, {"main": 30}, Files(0, 0, 0)), "t", now=NOW, days=7, keep=5, floors=[])
    assert made.would_expire == (1, 2, 3, 4)


def test_snapshots_beside_main_are_not_cut() -> None:
    """Only main's own history is considered."""
    table = facts(30)
    beside = Snapshot(99, 3, NOW - timedelta(days=20), "append")
    made = plan(TableFacts("t", "m", 1, [*table.snapshots, beside], {"main": 30}, Files(0, 0, 0)), "t", now=NOW, days=7, keep=5, floors=[])
    assert 99 not in made.would_expire


@given(
    count=st.integers(1, 60),
    days=st.integers(1, 40),
    keep=st.integers(1, 40),
    floor=st.none() | st.integers(1, 60),
    tag=st.none() | st.integers(1, 60),
    writer=st.none() | st.integers(1, 60),
)
def test_what_may_go_is_always_safe(count: int, days: int, keep: int, floor: int | None, tag: int | None, writer: int | None) -> None:
    """Whatever the limits: no needed, young or tagged snapshot goes, `keep` stay, and the rest is an unbroken beginning."""
    floors = [] if floor is None else [Floor("reader", floor)]
    table = facts(count, refs={} if tag is None or tag > count else {"tag": tag}, query_ids={} if writer is None else {writer: "q"})
    going = plan(table, "t", now=NOW, days=days, keep=keep, floors=floors).would_expire
    assert count - len(going) >= min(keep, count)
    assert all(NOW - table.snapshots[n - 1].at > timedelta(days=days) for n in going)
    assert all(n < needed for n in going for needed in (floor, writer) if needed is not None and needed <= count)
    assert set(going) | ({tag} if tag else set()) >= set(range(1, max(going, default=0) + 1))
    assert tag not in going
