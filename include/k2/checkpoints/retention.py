"""Whether a stream's source still holds the place where the stream goes on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from k2.registry.history import NO_SNAPSHOT, Chain, Span


@dataclass(frozen=True)
class Loss:
    """Why a stream cannot go on without loss, in a sentence.

    `lost` are the offsets per partition that are gone while the rest can be read on from this checkpoint. It is empty when
    nothing can: the place itself is gone, and only a new checkpoint can go on.
    """

    sentence: str
    lost: Mapping[str, Span] = field(default_factory=dict)

    def covers(self, found: Loss) -> bool:
        """Whether whoever accepted this has accepted that: the same kind of loss, and nothing beyond these offsets."""
        if not self.lost or not found.lost:
            return not self.lost and not found.lost
        return all(p in self.lost and self.lost[p][0] <= first and end <= self.lost[p][1] for p, (first, end) in found.lost.items())

    def as_dict(self) -> dict[str, Any]:
        return {"sentence": self.sentence, "lost": {partition: list(span) for partition, span in self.lost.items()}}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Loss:
        """From what `as_dict` gave."""
        return cls(found["sentence"], {partition: (first, end) for partition, (first, end) in found["lost"].items()})


def kafka_loss(topic: str, next_offsets: Mapping[str, int], planned: Mapping[str, int], starts: Mapping[str, int], ends: Mapping[str, int]) -> Loss | None:
    """Compare, per partition, the next offset and the end of the batch in flight with what the topic holds; None when nothing is missing.

    `starts` and `ends` hold what Kafka said of every partition of `next_offsets`; one that is missing in them is gone.
    """
    beyond, lost = [], {}
    for partition, offset in sorted(next_offsets.items(), key=lambda item: int(item[0])):
        if partition not in starts or partition not in ends:
            beyond.append(f"partition {partition} is gone, and {offset} is the next offset")
            continue
        reached = max(offset, planned.get(partition, offset))
        if reached > ends[partition]:
            beyond.append(f"partition {partition} ends at {ends[partition]}, and {reached} was reached already")
        elif offset < starts[partition]:
            lost[partition] = (offset, starts[partition])
    if beyond:
        return Loss(f"topic {topic} was made anew or cut: {'; '.join(beyond)}")
    if not lost:
        return None
    records = sum(end - first for first, end in lost.values())
    gone = "; ".join(f"partition {p} [{first}, {end})" for p, (first, end) in lost.items())
    return Loss(f"Kafka no longer holds {records:,} records of {topic} that were not read: {gone}", lost)


def snapshot_loss(table: str, committed: Mapping[str, Any], branch: Chain, committed_at: datetime | None) -> Loss | None:
    """Whether main's chain of snapshots still reaches back to the committed one; None when it does."""
    snapshot = committed["snapshot_id"]
    if any(c.snapshot == snapshot for c in branch.commits) or (snapshot == NO_SNAPSHOT and branch.whole):
        return None
    oldest = branch.commits[0] if branch.commits else None
    retained = f"the oldest retained one is {oldest.snapshot}, of {oldest.at:%Y-%m-%d %H:%M:%S} UTC" if oldest else "it retains none"
    since = f", committed at {committed_at:%Y-%m-%d %H:%M:%S} UTC" if committed_at else ""
    place = f"snapshot {snapshot}" if snapshot != NO_SNAPSHOT else "the beginning"
    return Loss(f"{place} of {table}, where it goes on{since}, is no longer on main: {retained}")
