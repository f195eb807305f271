"""The daily report, and the incidents that follow from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from k2.health.checks import Check, CheckResult, Status, measured, unknown
from k2.health.report import Change, as_dict, changes, markdown
from k2.registry.platform import Threshold

AT = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
LIMIT = Threshold(yellow=80, red=90)


def memory(value: float | None, subject: str = "kafka", muted: str | None = None) -> CheckResult:
    made = unknown(Check.MEMORY, subject, "nobody answered", LIMIT) if value is None else measured(Check.MEMORY, subject, value, LIMIT, "evidence")
    return replace(made, muted=muted)


def by_key(found: list[Change]) -> dict[str, str | None]:
    return {change.key: change.severity for change in found}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (10.0, {"health:memory:kafka:red": None, "health:memory:kafka:yellow": None, "health:memory:*:unknown": None}),
        (85.0, {"health:memory:kafka:red": None, "health:memory:kafka:yellow": "digest", "health:memory:*:unknown": None}),
        (95.0, {"health:memory:kafka:red": "page", "health:memory:kafka:yellow": None, "health:memory:*:unknown": None}),
        (None, {"health:memory:*:unknown": "ticket"}),
    ],
)
def test_each_status_opens_its_own_and_resolves_the_others(value: float | None, expected: dict[str, str | None]) -> None:
    """Red pages, yellow is for the digest, unknown is a ticket that resolves nothing, green resolves all."""
    assert by_key(changes([memory(value)])) == expected


def test_unknown_of_one_subject_keeps_the_ticket_of_the_check() -> None:
    """One ticket per check names every subject that cannot be read, and stays while one is left."""
    found = changes([memory(None, "kafka"), memory(None, "postgres"), memory(10.0, "feed_kraken")])
    ticket = next(c for c in found if c.key == "health:memory:*:unknown")
    assert ticket.severity == "ticket"
    assert "kafka: nobody answered" in ticket.text and "postgres: nobody answered" in ticket.text and "feed_kraken" not in ticket.text


@pytest.mark.parametrize("value", [None, 85.0, 95.0])
def test_muted_opens_nothing(value: float | None) -> None:
    """A stream that was started a moment ago is reported as it is, and disturbs nobody."""
    assert not [c for c in changes([memory(value, muted="started at 06:29")]) if c.severity]


def test_verdicts_open_nothing() -> None:
    """The watchdog has its own incident for a dead stream: one cause is one incident."""
    assert changes([CheckResult(Check.STREAM, "bronze_binance", Status.RED, None, None, None, "DEAD: gone")]) == []


def test_incident_says_value_limits_and_what_to_do() -> None:
    """The text of a page can stand alone."""
    page = next(c for c in changes([memory(95.0)]) if c.severity == "page")
    assert page.title == "memory of kafka is red"
    assert page.text.startswith("95.00 % of budget (evidence); yellow from 80, red above 90\nWhat to do: ")


def test_markdown_has_the_worst_first_and_one_line_of_advice_per_trouble() -> None:
    """What is red stands on top, green last, and equal advice is given once."""
    text = markdown([memory(10.0, "a"), memory(95.0, "b"), memory(None, "c"), memory(85.0, "d"), memory(96.0, "e", muted="just started")], AT)
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[2] for row in rows] == ["b", "e", "c", "d", "a"]
    assert text.startswith("**🔴 red** at 2026-11-21 06:30:00 UTC: 2 red, 1 unknown, 1 yellow, 1 green")
    assert text.count("restart it") == 1 and "memory of b, e, d" in text
    assert "(no alert: just started)" in text


def test_a_pipe_in_the_evidence_does_not_break_the_table() -> None:
    """Each row has the same number of cells."""
    text = markdown([replace(memory(95.0), evidence="a | b\nc")], AT)
    row = next(line for line in text.splitlines() if "🔴" in line and line.startswith("|"))
    assert row.count("|") == 8 and "a / b c" in row


def test_all_green_needs_nothing() -> None:
    """A good day is said in one line."""
    assert markdown([memory(10.0)], AT).endswith("**What to do:** nothing.")


def test_dict_is_plain() -> None:
    """The stored report holds values, units, limits and advice of each check."""
    report = as_dict([memory(95.0)], AT)
    assert report["status"] == "red" and report["at"] == "2026-11-21T06:30:00+00:00"
    check = report["checks"][0]
    assert (check["check"], check["value"], check["unit"], check["yellow"], check["red"]) == ("memory", 95.0, "% of budget", 80, 90)
    assert check["advice"]
