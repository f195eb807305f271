"""Kept certificates: what was changed or removed afterwards shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from k2.registry.certificate import Certificate, Check, Result, digest
from k2.state import certificates

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def rows(count: int) -> list[dict[str, Any]]:
    """Certificates as the database gives them back."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        checks = (Check("same query", Result.PASSED, "query q"), Check("rows add up", Result.FAILED, "batch 3: less", 3))
        made = Certificate("s", "q", number, 0, 5, 6, 60, (1, 2), checks).as_dict()
        row = {**made, "id": number + 1, "at": T0 + timedelta(hours=number), "previous": found[-1]["digest"] if found else None}
        row["checks"] = [{**check, "result": str(check["result"])} for check in row["checks"]]
        found.append({**row, "digest": digest(certificates._content(row))})
    return found


def test_untouched_certificates_hold() -> None:
    """Also when the database tells the moment in another zone."""
    kept = rows(3)
    kept[1]["at"] = kept[1]["at"].astimezone(timezone(timedelta(hours=9)))
    assert certificates.changed(kept) == []
    assert certificates.changed([]) == []


def test_every_field_is_signed() -> None:
    """One that is changed anywhere is named."""
    for name, value in {"stream": "t", "fence": 9, "at": T0, "query": None, "last": 6, "rows": 61, "fences": [1], "color": "green", "checks": []}.items():
        kept = rows(3)
        kept[2][name] = value
        assert certificates.changed(kept) == [3], name


def test_one_that_was_removed_is_missed_by_the_next() -> None:
    """The first and a middle one; of the last there is nobody to miss it."""
    assert certificates.changed(rows(3)[1:]) == [2]
    kept = rows(3)
    assert certificates.changed([kept[0], kept[2]]) == [3]


def test_one_that_was_written_anew_breaks_the_chain() -> None:
    """A forged row with a digest of its own is right in itself, and the one behind it does not know it."""
    kept = rows(3)
    kept[1]["color"] = "green"
    kept[1]["digest"] = digest(certificates._content(kept[1]))
    assert certificates.changed(kept) == [3]
