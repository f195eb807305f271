"""Maintenance windows: what is told now, what waits, and that nothing is ever swallowed."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.alerts.due import due
from k2.alerts.muting import Telling, covers, objection, plan
from k2.registry.windows import Window

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LAYERS = {"bronze_kraken": "bronze", "silver_kraken": "silver"}
INCLUDE = Path(__file__).resolve().parents[3] / "include" / "k2"


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def window(scope: str = "all", begins: float = -30, ends: float = 30, number: int = 1) -> Window:
    return Window(number, scope, at(begins), at(ends), "ann", "moving the broker")


def incident(
    opened: float = -10, *, key: str = "stream:bronze_kraken", severity: str = "page", resolved: float | None = None, told: bool = False
) -> dict[str, Any]:
    return {
        "id": 7,
        "key": key,
        "severity": severity,
        "title": "Stream bronze_kraken died",
        "opened_at": at(opened),
        "resolved_at": None if resolved is None else at(resolved),
        "told_opened_at": at(opened) if told else None,
        "told_resolved_at": None,
        "told_at": at(opened) if told else None,
        "times": 1,
        "told_times": int(told),
    }


def telling(seen: dict[str, Any], windows: list[Window], now: datetime = NOW) -> Telling:
    what = due(seen, now)
    return plan([(seen, what)] if what else [], windows, LAYERS, now)


@pytest.mark.parametrize(
    ("scope", "key", "covered"),
    [
        ("all", "stream:bronze_kraken", True),
        ("all", "dependency:schema_registry", True),
        ("all", "health:disk:*:red", True),
        ("all", "dag:streams_watch", False),
        ("all", "dag:streams_watch:watch", False),
        ("all", "watchers:poll", False),
        ("all", "watchers:streams_watch", False),
        ("bronze", "stream:bronze_kraken", True),
        ("silver", "stream:bronze_kraken", False),
        ("bronze_kraken", "stream:bronze_kraken", True),
        ("silver_kraken", "stream:bronze_kraken", False),
        ("bronze_kraken", "health:lag_rows:bronze_kraken:red", True),
        ("bronze", "health:lag_rows:bronze_kraken:red", True),
        ("bronze", "health:disk:*:red", False),
        ("bronze", "down:bronze_kraken", True),
        ("bronze", "down:bronze_kraken:silver_kraken", False),
        ("all", "down:bronze_kraken:silver_kraken", True),
    ],
)
def test_what_a_window_covers(scope: str, key: str, covered: bool) -> None:
    """A stream, a layer, all: and never the supervision itself."""
    assert covers(window(scope), key, LAYERS) == covered


@pytest.mark.parametrize(
    ("windows", "seen", "told_alone", "in_digest"),
    [
        ([], incident(), True, 0),
        ([window()], incident(), False, 0),
        ([window()], incident(resolved=-5), False, 0),
        ([window()], incident(-40), True, 0),  # it began before
        ([window()], incident(told=True, resolved=-5), True, 0),  # people know of it, and hear of its end
        ([window("silver")], incident(), True, 0),
        ([window(begins=10, ends=30)], incident(), True, 0),  # a window to come
        ([window(ends=-1)], incident(), True, 1),  # over, and still open: it pages
        ([window(ends=-1)], incident(severity="ticket"), False, 1),
        ([window(ends=-1)], incident(resolved=-5), False, 1),
        ([window(ends=-1), window("bronze", number=2)], incident(), False, 1),  # the other one still runs
        ([window(ends=-1)], incident(0), True, 0),  # it began after
    ],
)
def test_what_is_due(windows: list[Window], seen: dict[str, Any], told_alone: bool, in_digest: int) -> None:
    """Muted while the window is open, told in its digest when it is over, and paged then if it is still open."""
    found = telling(seen, windows)
    assert ([row for row, _ in found.incidents] == [seen], sum(len(happened) for _, happened in found.digests)) == (told_alone, in_digest)
    assert [w.id for w, _ in found.digests] == [w.id for w in windows if w.ends_at <= NOW]
    assert len(found) == len(found.incidents) + len(found.digests)


def test_a_place_in_a_digest_is_enough_for_what_nothing_mutes_and_does_not_page() -> None:
    """What another window still mutes is in its digest too; what pages is told alone."""
    ended, runs = window(ends=-1), window("bronze", number=2)

    def enough(seen: dict[str, Any], *windows: Window) -> bool:
        ((_, [(_, enough)]),) = telling(seen, list(windows)).digests
        return enough

    assert enough(incident(severity="ticket"), ended) and enough(incident(resolved=-5), ended)
    assert not enough(incident(), ended) and not enough(incident(severity="ticket"), ended, runs)


MINUTES = st.integers(-600, 600)


@st.composite
def some_windows(draw: Any) -> list[Window]:
    """Up to four windows of any scope and up to eight hours, over, open or to come."""
    made = []
    for number in range(draw(st.integers(0, 4))):
        begins = draw(MINUTES)
        made.append(window(draw(st.sampled_from(["all", "bronze", "silver", "bronze_kraken"])), begins, begins + draw(st.integers(0, 480)), number))
    return made


@st.composite
def some_incident(draw: Any) -> dict[str, Any]:
    """One that has been opened by now, and may be over and told."""
    opened, lasted = draw(st.integers(-600, 0)), draw(st.none() | st.integers(0, 600))
    key = draw(st.sampled_from(["stream:bronze_kraken", "stream:silver_kraken", "dag:streams_watch", "dependency:kafka"]))
    resolved = None if lasted is None else min(0, opened + lasted)
    return incident(opened, key=key, severity=draw(st.sampled_from(["page", "ticket", "digest"])), resolved=resolved, told=draw(st.booleans()))


@given(some_incident(), some_windows())
def test_nothing_is_swallowed(seen: dict[str, Any], windows: list[Window]) -> None:
    """Whatever is due is told alone, or by a digest, or a window that is open now and will end covers it; the supervision is never muted."""
    what, found = due(seen, NOW), telling(seen, windows)
    by_digest = any(happened for _, happened in found.digests)
    muted = any(w.open_at(NOW) and covers(w, seen["key"], LAYERS) for w in windows)
    assert what is None or found.incidents or by_digest or muted
    if what is not None and (seen["key"].startswith("dag:") or (seen["told_opened_at"] is not None and what != "reminder")):
        assert found.incidents == [(seen, what)]


@given(some_incident(), some_windows())
def test_every_window_ends(seen: dict[str, Any], windows: list[Window]) -> None:
    """Once all windows are over, what is due is told by a digest or alone, and what is still open and pages is told alone."""
    later = NOW + timedelta(hours=30)
    what, found = due(seen, later), telling(seen, windows, later)
    assert what is None or found.incidents or any(happened for _, happened in found.digests)
    if seen["severity"] == "page" and seen["resolved_at"] is None:
        assert found.incidents == [(seen, what)]


def test_a_page_that_people_know_is_not_repeated_during_a_window() -> None:
    """Somebody works on it: it is repeated when the window ends, if it still stands."""
    known = incident(-45, told=True)
    assert telling(known, []).incidents and telling(known, [window("silver")]).incidents
    assert telling(known, [window("bronze")]).incidents == []
    assert telling(known, [window("bronze", ends=-1)]).incidents


@pytest.mark.parametrize(
    ("starts", "hours", "words"),
    [
        (0, 1, None),
        (-30, 1, None),
        (60, 8, None),
        (0, 8.5, "hours: 8.5 is more than 8"),
        (0, 0.05, "hours: 0.05 is less than five minutes"),
        (-120, 1, "is over already"),
        (60 * 24 * 40, 1, "more than a month away"),
    ],
)
def test_a_window_must_make_sense(starts: float, hours: float, words: str | None) -> None:
    """It always ends, not too late and not in the past; an objection names field and value."""
    found = objection(at(starts), hours, 8, NOW)
    assert (found is None) if words is None else (found is not None and words in found)


@pytest.mark.parametrize("package", ["supervision", "watchdog", "probes", "launchers", "health"])
def test_a_window_blinds_nobody(package: str) -> None:
    """Whoever watches, judges and acts knows nothing of windows."""
    for path in (INCLUDE / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            module = getattr(node, "module", None) or ""
            assert not any("windows" in name or "muting" in name for name in [*names, module]), path
