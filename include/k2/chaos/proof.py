"""The end of a run: everything that was committed, compared by content, and the fences in the tables' histories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from k2.feeds.audit import Audit
from k2.feeds.received import audit_exchange, audit_silver
from k2.probes.state import StateProbe
from k2.reconcile.compare import PartitionResult
from k2.reconcile.read import reconcile
from k2.registry.runtime import Runtime
from k2.supervision.certificate import certify
from k2.watchdog.certifying import read_history

FENCE = "k2.fence"
QUERIES = ("k2.query-id", "spark.sql.streaming.queryId")
BATCHES = ("k2.batch-id", "spark.sql.streaming.epochId")


@dataclass(frozen=True)
class Proof:
    partitions: Sequence[PartitionResult]
    silver: Mapping[str, Audit]
    kafka: Mapping[str, Audit]
    stale: Sequence[str]
    """One sentence per commit whose fence or batch is below an earlier one's: the histories read on their own, not by the certificate's rule."""
    certificates: Mapping[str, str] = field(default_factory=dict)
    """By stream, what is not green of the certificate of all its history: the check and its evidence; empty for a green one."""

    @property
    def lost(self) -> int:
        """Records that are not where they belong, or not as they were."""
        changed = sum(a.changed_count + a.unexpected_count for a in self.silver.values())
        below_kafka = sum(max(0, self.silver[e].missing - self.kafka[e].missing) for e in self.silver)
        return sum(r.not_in_bronze + r.changed_in_bronze + r.in_neither for r in self.partitions) + changed + below_kafka

    @property
    def doubled(self) -> int:
        return sum(r.doubled_in_bronze + r.doubled_below for r in self.partitions)


def prove(runtime: Runtime, wait_seconds: float) -> Proof:
    """Reads every record. The market must be paused."""
    partitions = reconcile(runtime, runtime.platform, wait_seconds)
    silver = {e: audit_silver(runtime, e) for e in runtime.platform.exchanges}
    kafka = {e: audit_exchange(runtime, e) if found.missing else found for e, found in silver.items()}
    return Proof(partitions, silver, kafka, stale_commits(histories(runtime)), _certificates(runtime))


def _certificates(runtime: Runtime) -> dict[str, str]:
    state = StateProbe(runtime)
    try:
        found = {stream: certify(read_history(runtime, state, stream, files_of=None)) for stream in runtime.platform.streams}
    finally:
        state.close()
    return {s: "; ".join(f"{c.name} {c.result}: {c.evidence}" for c in found[s].checks if c.result != "passed") for s in found}


def histories(runtime: Runtime) -> dict[str, list[Mapping[str, str]]]:
    """The summaries of each table's retained snapshots, oldest first."""
    tables = {t for s in runtime.platform.streams.values() for t in s.writes}
    state = StateProbe(runtime)
    try:
        locations = state.metadata_locations(tables)
    finally:
        state.close()
    found = {}
    for table, location in locations.items():
        metadata: dict[str, Any] = json.loads(Path(unquote(urlparse(location).path)).read_bytes())
        snapshots = sorted(metadata.get("snapshots", []), key=lambda s: s["sequence-number"])
        found[table] = [s["summary"] for s in snapshots]
    return found


def stale_commits(histories: Mapping[str, Iterable[Mapping[str, str]]]) -> list[str]:
    """Commits with a lower fence, or not with a higher batch, than an earlier one of the same query in the same table."""
    found = []
    for table, summaries in histories.items():
        last: dict[str, tuple[int, int]] = {}
        for summary in summaries:
            query = next((summary[key] for key in QUERIES if key in summary), None)
            batch = next((int(summary[key]) for key in BATCHES if key in summary), None)
            if FENCE not in summary or query is None or batch is None:
                continue  # a commit of nobody's stream
            fence = int(summary[FENCE])
            if query in last:
                before_fence, before_batch = last[query]
                if fence < before_fence:
                    found.append(f"{table}: batch {batch} was committed with fence {fence} after fence {before_fence}")
                elif batch <= before_batch:
                    found.append(f"{table}: batch {batch} was committed after batch {before_batch}")
            last[query] = fence, batch
    return found
