"""The exactly-once certificate: whether the batches of a stream follow on each other in its tables, each once. Pure.

It is judged from metadata alone: the snapshots of the tables, the offsets of their files, the checkpoint's logs and
the ledger of launches. What metadata no longer holds is not covered, and what it cannot tell is unknown, never passed.
"""

from __future__ import annotations

from dataclasses import replace

from k2.registry.certificate import Certificate
from k2.registry.history import History
from k2.supervision.lineage import CHECKS, SILVER_CHECKS, Seen


def certify(history: History, *, since: int | None = None, limit: int | None = None) -> Certificate:
    """Judge the history, from batch `since` of the present query on if that is retained, and at most the newest `limit` commits."""
    seen = Seen(history, since, limit)
    checks = SILVER_CHECKS if history.layer == "silver" else CHECKS
    batches = [c.batch for c in seen.own if c.batch is not None]
    return Certificate(
        stream=history.stream,
        query=seen.query,
        fence=history.fence,
        first=batches[0] if batches else None,
        last=batches[-1] if batches else None,
        batches=len(batches),
        rows=sum(c.added for c in seen.own),
        fences=tuple(sorted({c.fence for c in seen.own if c.fence is not None})),
        checks=tuple(replace(check(seen), name=name) for name, check in checks.items()),
    )
