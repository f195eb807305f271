"""The weekly report on tables: one run over all of them, as a dict and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from k2.checkpoints.report import size
from k2.maintenance.facts import TableFacts
from k2.maintenance.plan import Plan, plan
from k2.maintenance.read import read_table, reader_floors
from k2.registry.runtime import Runtime


@dataclass(frozen=True)
class TableReport:
    plan: Plan
    facts: TableFacts | None

    def as_dict(self) -> dict[str, Any]:
        found = self.plan.as_dict()
        if self.facts is not None:
            found |= {
                "metadata_versions": self.facts.metadata_versions,
                "files": asdict(self.facts.files),
                "orphans": asdict(self.facts.orphans) | {"examples": list(self.facts.orphans.examples)},
                "metadata_location": self.facts.metadata_location,
            }
        return found


def examine(runtime: Runtime, *, now: datetime, days: float, keep: int, orphan_days: float, budget_seconds: float) -> list[TableReport]:
    """Read and judge every declared table. Raises when the catalog or a table cannot be read: no report is better than half of one."""
    found = []
    for name in runtime.platform.tables:
        facts = read_table(runtime, name, now=now, orphan_days=orphan_days, budget_seconds=budget_seconds)
        verdict = plan(facts, name, now=now, days=days, keep=keep, floors=reader_floors(runtime, name))
        found.append(TableReport(verdict, facts))
    return found


def markdown(reports: Sequence[TableReport], *, days: float, keep: int, orphan_days: float) -> str:
    """A table of what there is, and a line per table on what could go and why."""
    lines = [
        f"Limits: older than {days:g} days, {keep} snapshots stay, orphans older than {orphan_days:g} days. **Nothing was changed.**",
        "",
        "| table | snapshots | due | data files | small | size | metadata versions | orphan files (first look) | outcome |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        p, f = report.plan, report.facts
        if f is None:
            lines.append(f"| {p.table} | – | – | – | – | – | – | – | {p.outcome} |")
            continue
        orphans = "not examined" if f.orphans.why_not else f"{f.orphans.count} ({size(f.orphans.bytes)})"
        cells = (p.table, p.snapshots, p.due, f.files.count, f.files.small, size(f.files.bytes), f.metadata_versions, orphans, p.outcome)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines.append("")
    for report in reports:
        p, f = report.plan, report.facts
        could = f"{len(p.would_expire)} snapshots could go" if p.would_expire else "nothing could go"
        held = f"; held by {', '.join(p.held_by)}" if p.held_by else ""
        lines.append(f"* **{p.table}**: {p.outcome} / {p.reason}: {could}{held}")
        if f is not None and f.orphans.why_not:
            lines.append(f"  * orphan files were not examined: {f.orphans.why_not}")
    return "\n".join(lines)
