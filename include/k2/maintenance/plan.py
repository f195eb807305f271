"""What the weekly run could expire, and what holds the rest. Pure.

The rules of the platform: a table with no more than `keep` snapshots is left alone; otherwise what is older than `days`
may go, oldest first, until `keep` are left. Only an unbroken beginning of main's history may go, and it ends before
the first snapshot that a reader or a writer still stands on. Where such a position cannot be known, nothing may go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from k2.maintenance.facts import Floor, Snapshot, TableFacts


class Outcome(StrEnum):
    WOULD_EXPIRE = "would_expire"
    SKIPPED = "skipped"
    NOTHING_DUE = "nothing_due"
    HELD = "held"
    """Something is due, and a reader, a writer or a tag still needs it."""
    REFUSED = "refused"
    """A position that must be known is not: nothing may go."""


@dataclass(frozen=True)
class Plan:
    """The verdict on one table. Ages are in hours, of the oldest snapshot that is due by age, None when none is."""

    table: str
    outcome: Outcome
    reason: str
    snapshots: int = 0
    due: int = 0
    would_expire: tuple[int, ...] = ()
    oldest_due_hours: float | None = None
    held_by: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        expire = {"would_expire": len(self.would_expire), "first": self.would_expire[:1], "last": self.would_expire[-1:]}
        return asdict(self) | expire


def plan(facts: TableFacts | None, name: str, *, now: datetime, days: float, keep: int, floors: Sequence[Floor]) -> Plan:
    """Judge one table; `facts` is None for a table that does not exist yet. `floors` are those of the streams that read it."""
    if facts is None:
        return Plan(name, Outcome.SKIPPED, "the table does not exist yet")
    chain = facts.chain()
    if len(facts.snapshots) <= keep:
        return Plan(name, Outcome.SKIPPED, f"below_minimum_{keep}", snapshots=len(facts.snapshots))
    cutoff = now - timedelta(days=days)
    due = _prefix(chain, cutoff)
    counts = {"snapshots": len(facts.snapshots), "due": len(due), "oldest_due_hours": round((now - due[0].at).total_seconds() / 3600, 1) if due else None}
    unknown = [f for f in floors if f.snapshot is None]
    if unknown:
        because = "; ".join(f"{f.holder}: {f.why_unknown}" for f in unknown)
        return Plan(name, Outcome.REFUSED, f"cannot know what is still read ({because})", **counts, held_by=tuple(f.holder for f in unknown))
    strangers = [f for f in floors if f.snapshot not in {s.id for s in chain}]
    if strangers:
        because = "; ".join(f"{f.holder} stands on {f.snapshot}" for f in strangers)
        return Plan(name, Outcome.REFUSED, f"a position is not in main's history ({because})", **counts, held_by=tuple(f.holder for f in strangers))
    if not due:
        return Plan(name, Outcome.NOTHING_DUE, f"nothing is older than {days:g} days", **counts)
    return _cut(name, facts, chain, due, keep, [*floors, *writer_floors(chain)], counts)


def _cut(name: str, facts: TableFacts, chain: list[Snapshot], due: list[Snapshot], keep: int, floors: Sequence[Floor], counts: dict[str, Any]) -> Plan:
    position = {s.id: index for index, s in enumerate(chain)}
    room = max(0, len(facts.snapshots) - keep)
    wanted = min(len(due), room)
    holders = [(position[f.snapshot], f.holder) for f in floors if f.snapshot is not None and position[f.snapshot] < wanted]
    end = min([wanted, *(at for at, _ in holders)])
    tagged = set(facts.refs.values())
    tags = [ref for ref, at in facts.refs.items() if at in position and position[at] < end]
    may_go = tuple(s.id for s in chain[:end] if s.id not in tagged)
    held_by = tuple(holder for at, holder in sorted(holders) if at == end) + tuple(f"tag {t}" for t in sorted(tags))
    if not may_go:
        return Plan(name, Outcome.HELD, f"{len(due)} are older than the limit, and all are still needed", **counts, held_by=held_by)
    why = f"older than the limit, and at least {keep} stay" if wanted == len(due) else f"{keep} stay, whatever their age"
    return Plan(name, Outcome.WOULD_EXPIRE, why, **counts, would_expire=may_go, held_by=held_by)


def _prefix(chain: list[Snapshot], cutoff: datetime) -> list[Snapshot]:
    """The beginning of the history up to the first snapshot that is young enough to stay, whatever the clocks said later."""
    found = []
    for snapshot in chain:
        if snapshot.at >= cutoff:
            break
        found.append(snapshot)
    return found


def writer_floors(chain: Sequence[Snapshot]) -> list[Floor]:
    """The newest snapshot of every query that wrote: its exactly-once check looks for it after a crash."""
    newest = {s.query_id: s.id for s in chain if s.query_id is not None}
    return [Floor(f"writer {query_id}", snapshot) for query_id, snapshot in newest.items()]
