"""The daily report as a dict and as Markdown, and the incidents that follow from it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from k2.health.checks import UNKNOWN_ADVICE, WORST_FIRST, Check, CheckResult, Status, counts, worst

SIGNS = {Status.RED: "🔴 red", Status.UNKNOWN: "⚪ unknown", Status.YELLOW: "🟡 yellow", Status.GREEN: "🟢 green"}
SEVERITIES = {Status.RED: "page", Status.UNKNOWN: "ticket", Status.YELLOW: "digest"}
INFORMS_ONLY = frozenset({Check.STREAM})
"""The watchdog opens its own incident for a stream; one cause is one incident."""


@dataclass(frozen=True)
class Change:
    """One incident to open (`severity` set) or to resolve. `text` is its detail or its resolution."""

    key: str
    severity: str | None
    title: str
    text: str


def as_dict(results: Sequence[CheckResult], at: datetime) -> dict[str, Any]:
    return {"at": at.isoformat(), "status": str(worst(results)), "counts": dict(counts(results)), "checks": [r.as_dict() for r in results]}


def markdown(results: Sequence[CheckResult], at: datetime) -> str:
    """The worst first; below the table what to do, once per kind of trouble."""
    ordered = sorted(results, key=lambda r: (WORST_FIRST.index(r.status), r.check, r.subject))
    lines = [
        f"**{SIGNS[worst(results)]}** at {at:%Y-%m-%d %H:%M:%S} UTC: " + ", ".join(f"{n} {name}" for name, n in counts(results).items()),
        "",
        "| status | check | of | value | yellow from | red above | evidence |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in ordered:
        value = "–" if r.value is None else f"{r.value:,.2f} {r.unit}".rstrip()
        evidence = f"{r.evidence} (no alert: {r.muted})" if r.muted else r.evidence
        lines.append(f"| {SIGNS[r.status]} | {r.check} | {r.subject} | {value} | {_limit(r.yellow)} | {_limit(r.red)} | {_cell(evidence)} |")
    advice: dict[str, list[CheckResult]] = {}
    for r in ordered:
        if r.advice:
            advice.setdefault(r.advice, []).append(r)
    said = [f"* **{_group(group)}**: {text}" for text, group in advice.items()]
    return "\n".join([*lines, "", "**What to do:**" if said else "**What to do:** nothing.", *said])


def changes(results: Sequence[CheckResult]) -> list[Change]:
    """What the results mean for incidents: red opens a page, yellow a digest line, green resolves both.

    What cannot be read opens one ticket per check, and resolves nothing: an incident stays open until a reading says
    that it is over. A muted result opens nothing.
    """
    found: list[Change] = []
    telling = [r for r in results if r.check not in INFORMS_ONLY]
    for r in telling:
        for status in (Status.RED, Status.YELLOW):
            key = f"health:{r.check}:{r.subject}:{status}"
            if status is r.status and not r.muted:
                found.append(Change(key, SEVERITIES[status], f"{r.check} of {r.subject} is {status}", f"{_words(r)}\nWhat to do: {r.advice}"))
            elif r.status not in (status, Status.UNKNOWN):
                found.append(Change(key, None, "", f"Now {r.status}: {_words(r)}"))
    for check in dict.fromkeys(r.check for r in telling):
        key = f"health:{check}:*:{Status.UNKNOWN}"
        blind = [r for r in telling if r.check is check and r.status is Status.UNKNOWN]
        loud = [r for r in blind if not r.muted]
        if loud:
            lines = "\n".join(f"• {r.subject}: {r.evidence}" for r in loud)
            found.append(Change(key, SEVERITIES[Status.UNKNOWN], f"{check} cannot be judged", f"{lines}\nWhat to do: {UNKNOWN_ADVICE}"))
        elif not blind:
            found.append(Change(key, None, "", f"{check} can be read again"))
    return found


def _group(results: Sequence[CheckResult]) -> str:
    """Subjects by check: memory of a, b; disk of home."""
    checks: dict[str, list[str]] = {}
    for r in results:
        checks.setdefault(r.check, []).append(r.subject)
    return "; ".join(f"{check} of {', '.join(subjects)}" for check, subjects in checks.items())


def _words(r: CheckResult) -> str:
    if r.value is None:
        return r.evidence
    return f"{r.value:,.2f} {r.unit} ({r.evidence}); yellow from {_limit(r.yellow)}, red above {_limit(r.red)}"


def _limit(value: float | None) -> str:
    return "–" if value is None else f"{value:,g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
