"""What ./k2 certify prints."""

from __future__ import annotations

import io

from rich.console import Console

from k2.registry.certificate import Certificate, Check, Result
from k2.stack.commands.certify import CODES, render


def printed(certificate: Certificate, kept: int = 2, changed: list[int] | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(render(certificate, kept, changed or []))
    return console.file.getvalue()  # type: ignore[attr-defined]


def certificate(*checks: Check) -> Certificate:
    return Certificate("bronze_x", "q", 4, 7, 12, 6, 1234, (3, 4), checks)


def test_a_green_one_says_what_it_covers() -> None:
    """Batches, rows and fences, and a line per check."""
    text = printed(certificate(Check("rows add up", Result.PASSED, "1,234 rows [all]")))
    assert text.splitlines()[0] == "bronze_x is green: batches 7-12, 1,234 rows, fences 3, 4"
    assert "rows add up" in text and "1,234 rows [all]" in text and "2 certificates are kept, each as it was written" in text


def test_a_red_one_names_the_first_bad_batch() -> None:
    """Beside the evidence."""
    found = certificate(Check("offsets continue", Result.FAILED, "partition 0: 3 records missing", 9), Check("same query", Result.UNKNOWN, "away"))
    line = next(line for line in printed(found).splitlines() if line.startswith("offsets continue"))
    assert line.split() == ["offsets", "continue", "failed", "9", "partition", "0:", "3", "records", "missing"]
    assert CODES[found.color] == 1
    assert "bronze_x is unknown" in printed(certificate(Check("same query", Result.UNKNOWN, "away")))


def test_changed_certificates_are_named() -> None:
    """By their ids."""
    assert "of 2 kept certificates these were changed, or the one before them is gone: 17" in printed(certificate(), changed=[17])
