"""The reports that the daily and weekly DAGs make: each reads, judges, and returns what was found in three forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from k2.health import readers as health
from k2.health import report as health_report
from k2.health.checks import counts, worst
from k2.maintenance import report as maintenance
from k2.registry.runtime import Runtime

ORPHAN_LOOK_SECONDS = 600


@dataclass(frozen=True)
class Written:
    """`result` is everything, `summary` a few numbers for the asset's history, `markdown` for people."""

    result: dict[str, Any]
    summary: dict[str, Any]
    markdown: str


def iceberg_maintenance(runtime: Runtime, params: dict[str, Any]) -> Written:
    limits = {"days": params["days"], "keep": params["keep"], "orphan_days": params["orphan_days"]}
    found = maintenance.examine(runtime, now=datetime.now(UTC), budget_seconds=ORPHAN_LOOK_SECONDS, **limits)
    summary = {r.plan.table: {"outcome": str(r.plan.outcome), "reason": r.plan.reason, "would_expire": len(r.plan.would_expire)} for r in found}
    return Written({"limits": limits, "tables": [r.as_dict() for r in found]}, summary, maintenance.markdown(found, **limits))


def platform_health(runtime: Runtime, params: dict[str, Any]) -> Written:
    """Also opens and resolves the incidents that follow; the next run of streams_watch tells people."""
    now = datetime.now(UTC)
    results = health.examine(runtime, now)
    changed = apply(runtime, health_report.changes(results))
    summary = {"status": str(worst(results)), **counts(results), **changed}
    return Written(health_report.as_dict(results, now) | changed, summary, health_report.markdown(results, now))


def apply(runtime: Runtime, changes: Sequence[health_report.Change]) -> dict[str, list[str]]:
    """Open and resolve incidents in one transaction. Returns the keys of those that really changed."""
    from k2.state.database import connect
    from k2.state.incidents import open_incident, resolve_incident

    opened, resolved = [], []
    with connect(runtime, "control") as connection:
        for change in changes:
            if change.severity is None:
                if resolve_incident(connection, change.key, change.text) is not None:
                    resolved.append(change.key)
            elif open_incident(connection, change.key, change.severity, change.title, change.text) is not None:
                opened.append(change.key)
    return {"opened": opened, "resolved": resolved}
