"""The plan of a checkpoint that is gone and is made again: where its stream goes on, as its tables prove. Pure.

Bronze goes on as a new query behind the last offset that its table holds of each Kafka partition; batches are numbered from 0 again. Silver goes on
as the same query with its newest batch planned once more: the writer finds that batch in Silver, stops if its rows are not divided as they were, and
appends to the DLQ what that lacks. Under a new query nothing could give the DLQ the rows of a batch that is in Silver alone.

A commit is there as a whole or not at all, so no batch is half in a table. A plan is right for as long as nobody commits: make it when the fence is
raised, in the same transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from k2.probes.rebuilding import Bronze, File, Held, Source, Spans
from k2.registry.history import NO_SNAPSHOT, Chain, Commit, Span

SHOWN = 5
BEGINNING = -1
"""Iceberg's position of a reader that has read no snapshot."""


class FaultKind(StrEnum):
    MISSING = "missing"
    """Between two records that Bronze has."""
    DOUBLED = "doubled"


@dataclass(frozen=True)
class Fault:
    """What stands between a Bronze table and the proof that it has each record once."""

    kind: FaultKind
    partition: str
    span: Span
    held: int = 0
    """Of missing offsets, how many Kafka has not deleted yet."""

    def __str__(self) -> str:
        there = f", and Kafka may still hold {self.held:,} of them" if self.held else ", and Kafka has none of them" if self.kind is FaultKind.MISSING else ""
        return f"partition {self.partition}: {_text(self.span)} {self.kind}{there}"


@dataclass(frozen=True)
class Refusal:
    """Why no checkpoint can be made. `faults`: what of the table is no proof."""

    reason: str
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Begin:
    """Where the new query begins in one Kafka partition, which now holds `kafka`."""

    partition: str
    offset: int
    kafka: Span
    held: Span | None
    """First offset in Bronze and the one after the last; None when Bronze has no record of the partition."""
    lost: Span | None = None
    """What Kafka deleted before it was read, as far as Bronze tells: of a partition that it has none of, all that is gone."""

    def __str__(self) -> str:
        if self.held is None:
            gone = f" (Kafka has deleted {_text(self.lost)}: whether that was ever read cannot be known, so it counts as lost)" if self.lost else ""
            return f"partition {self.partition} from {self.offset:,}, where Kafka's log begins, because Bronze has none of it{gone}"
        lost = f", because Kafka has deleted {_text(self.lost)}" if self.lost else ""
        return f"partition {self.partition} from {self.offset:,} (Bronze has {_text(self.held)}, Kafka ends at {self.kafka[1]:,}){lost}"


@dataclass(frozen=True)
class BronzePlan:
    topic: str
    query: str
    """The id of the new query."""
    begins: tuple[Begin, ...]
    files: int
    opened: int
    since: str | None
    accepted: tuple[Fault, ...] = ()

    @property
    def lost(self) -> dict[str, Span]:
        """Offsets per partition that nothing can bring back, as a launch that was adopted records them."""
        return {b.partition: b.lost for b in self.begins if b.lost}

    def sentence(self) -> str:
        """For whoever approves it: where it goes on, what is proven, what is lost."""
        opened = f"and the columns of {self.opened:,} of them " if self.opened else ""
        since = f" of the days since {self.since}" if self.since else ""
        accepted = f", except what is accepted: {_list(self.accepted)}" if self.accepted else ""
        records = sum(end - first for first, end in self.lost.values())
        return (
            f"A new query {self.query} goes on in topic {self.topic}: {'; '.join(map(str, self.begins))}. "
            f"Proven by the bounds of {self.files:,} files {opened}that Bronze has each record{since} up to there once{accepted}. "
            f"Lost: {f'{records:,} records that Kafka has deleted' if records else 'nothing'}."
        )


@dataclass(frozen=True)
class Place:
    """An offset of Iceberg's streaming source: a snapshot, and how many of its files were read."""

    snapshot: int
    position: int

    def as_json(self) -> str:
        offset = {"version": 1, "snapshot_id": self.snapshot, "position": self.position, "scan_all_files": False}
        return json.dumps(offset, separators=(",", ":"))


@dataclass(frozen=True)
class SilverPlan:
    query: str
    """The same query as before."""
    batch: int
    """Its newest batch in Silver, which will be planned again, from `begin` to `end`."""
    at: datetime
    begin: Place
    end: Place
    rows: tuple[int, int, int]
    """Of that batch: read, in Silver, for the DLQ."""
    owed: int
    """Rows of it that the DLQ lacks."""

    def sentence(self) -> str:
        """For whoever approves it: where it goes on, what is proven, what is lost."""
        read, silver, dlq = self.rows
        owed = f"; the DLQ lacks its {self.owed:,} rows and will get them" if self.owed else ""
        return (
            f"Query {self.query} goes on behind batch {self.batch}, which Silver has, in Bronze snapshot {self.end.snapshot} "
            f"behind {self.end.position} of its files{owed}. "
            "Proven by the rows and offsets that the batch says it read: one run of Bronze's files has just these, and no other. "
            f"The batch is planned once more, and the writer stops if its {read:,} rows are not {silver:,} of Silver and {dlq:,} of the DLQ again. "
            "Lost: nothing."
        )


def plan_bronze(
    topic: str,
    bronze: Bronze,
    starts: Mapping[str, int],
    ends: Mapping[str, int],
    query: str,
    accepted: Mapping[str, Sequence[Span]] | None = None,
    timestamps: Mapping[str, datetime] | None = None,
) -> BronzePlan | Refusal:
    """Where a new query `query` has to begin, so that it reads what Bronze does not have and nothing else.

    `starts` and `ends` are what Kafka says of every partition of the topic, asked after the table was read; `timestamps` those of its records with
    Bronze's last offsets, of the partitions where it still holds them. `accepted` are offsets per partition whose loss a person has accepted.
    """
    if gone := sorted(set(bronze.partitions) - set(ends), key=int):
        return Refusal(f"topic {topic} was made anew: Bronze has records of partition {', '.join(gone)}, and Kafka has no such partition")
    begins = []
    for partition in sorted(ends, key=int):
        held, kafka = bronze.partitions.get(partition), (starts[partition], ends[partition])
        if held is None:
            begins.append(Begin(partition, kafka[0], kafka, None, (0, kafka[0]) if kafka[0] else None))
            continue
        if another := _another(topic, partition, held, kafka[1], (timestamps or {}).get(partition)):
            return Refusal(another)
        end = held.last + 1
        lost = (end, kafka[0]) if kafka[0] > end else None
        begins.append(Begin(partition, max(end, kafka[0]), kafka, (held.spans[0][0], end), lost))
    faults = tuple(_faults(bronze, starts, ends))
    if open_faults := tuple(f for f in faults if f.kind is FaultKind.DOUBLED or not _covered(f.span, (accepted or {}).get(f.partition, ()))):
        return Refusal(
            f"that Bronze has each record of {topic} once cannot be proven: {_list(open_faults)}. Nobody has accepted these as lost, and what is doubled "
            "nobody can; one can be missing because it is a mark of a transaction or was compacted away. Find out why, and put a backup back, or adopt "
            "the stream",
            open_faults,
        )
    since = bronze.since.isoformat() if bronze.since else None
    return BronzePlan(topic, query, tuple(begins), bronze.files, bronze.opened, since, faults)


def _another(topic: str, partition: str, held: Held, end: int, at: datetime | None) -> str | None:
    """Why the records that Bronze has of a partition are not those of the topic as it is now; None when nothing speaks for that."""
    if held.topics != {topic}:
        return f"the last records of partition {partition} in Bronze are of topic {', '.join(sorted(held.topics))}, and the stream reads {topic}"
    if held.last >= end:
        return f"topic {topic} was made anew or cut: partition {partition} ends at {end:,}, and Bronze has records up to {held.last + 1:,}"
    if at is not None and at != held.last_at:
        here, there = (f"{one.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] for one in (held.last_at, at))
        return (
            f"topic {topic} was made anew or cut: record {held.last:,} of partition {partition} was written at {here} UTC as Bronze has it, "
            f"and the one that Kafka holds there at {there} UTC"
        )
    return None


def _faults(bronze: Bronze, starts: Mapping[str, int], ends: Mapping[str, int]) -> Iterator[Fault]:
    for partition, held in bronze.partitions.items():
        for (_, end), (first, _) in zip(held.spans, held.spans[1:], strict=False):
            there = max(0, min(first, ends[partition]) - max(end, starts[partition]))
            yield Fault(FaultKind.MISSING, partition, (end, first), there)
        yield from (Fault(FaultKind.DOUBLED, partition, span) for span in held.doubled)


def _covered(span: Span, accepted: Sequence[Span]) -> bool:
    together = Spans()
    for one in accepted:
        together.add(*one)
    return any(first <= span[0] and span[1] <= end for first, end in together.all())


def tail_of_silver(table: Chain) -> tuple[Commit, ...] | Refusal:
    """The newest batch in Silver and those before it that tell where it stood, newest first: back to the last one with rows, and the one before that."""
    own = [c for c in reversed(table.commits) if c.query is not None]
    if not own:
        return Refusal(
            "Silver has no batch: a start without a checkpoint reads Bronze from its beginning"
            if table.whole
            else "no batch is left in the retained history of Silver, so nothing says what was read of Bronze"
        )
    tail: list[Commit] = []
    for commit in own:
        if commit.query != own[0].query:
            break
        if commit.batch is None or None in (commit.rows_read, commit.rows_silver, commit.rows_dlq, commit.bronze_snapshot, commit.pieces):
            return Refusal(f"snapshot {commit.snapshot} of Silver does not say which batch it is and what it read of Bronze")
        if tail and commit.batch != (tail[-1].batch or 0) - 1:
            return Refusal(f"batch {tail[-1].batch} of Silver follows batch {commit.batch}: which of them was read last cannot be known")
        tail.append(commit)
        if len(tail) > 1 and any(c.rows_read for c in tail[:-1]):
            break
    return tuple(tail)


def plan_silver(table: Chain, dlq: Chain, source: Source, known_query: str | None, known_batch: int | None = None) -> SilverPlan | Refusal:
    """How to plan the newest batch in Silver once more. `source` is what `read_source` gives for `tail_of_silver`.

    `known_query` is the query that the stream's checkpoint was seen with, and `known_batch` the last batch that it had committed; None when nobody
    has seen it.
    """
    tail = tail_of_silver(table)
    if isinstance(tail, Refusal):
        return tail
    newest, previous = tail[0], next(iter(tail[1:]), None)
    assert newest.batch is not None and newest.query is not None and newest.bronze_snapshot is not None
    if known_query is not None and newest.query != known_query:
        return Refusal(f"the newest batch in Silver is of query {newest.query}, and the stream's is {known_query}: Silver does not say where that one stood")
    if later := _later(newest, dlq, known_batch):
        return Refusal(later)
    owed = _owed(newest, dlq)
    if isinstance(owed, Refusal):
        return owed
    files = _Files(source)
    if not files.has(newest.bronze_snapshot):
        return Refusal(f"Bronze snapshot {newest.bronze_snapshot}, which batch {newest.batch} of Silver reached, is no longer on main")
    span = _span(table, tail, files, source)
    if isinstance(span, Refusal):
        return span
    begin, end = files.place_of(previous, span[0]), files.place_of(newest, span[1])
    if begin is None or end is None:
        batch = newest if end is None else previous
        assert batch is not None
        return Refusal(f"batch {batch.batch} of Silver says that it reached Bronze snapshot {batch.bronze_snapshot}, and what was read ends elsewhere")
    rows = (newest.rows_read or 0, newest.rows_silver or 0, newest.rows_dlq or 0)
    return SilverPlan(newest.query, newest.batch, newest.at, begin, end, rows, owed)


def _later(newest: Commit, dlq: Chain, known_batch: int | None) -> str | None:
    """How it is known that Silver had later batches; None when nothing says so."""
    assert newest.batch is not None
    in_dlq = max((c.batch for c in dlq.commits if c.query == newest.query and c.batch is not None), default=-1)
    if in_dlq > newest.batch:
        later = f"the DLQ has batch {in_dlq}"
    elif known_batch is not None and known_batch > newest.batch:
        later = f"its checkpoint had committed batch {known_batch}"
    else:
        return None
    return (
        f"Silver was rolled back: its newest batch is {newest.batch} of query {newest.query}, and {later}. The next batches would get the numbers of those "
        "that are gone, and the DLQ takes no rows of a number that it has: put Silver's main branch back"
    )


def _owed(newest: Commit, dlq: Chain) -> int | Refusal:
    """How many rows of a batch that is in Silver the DLQ lacks."""
    wanted = newest.rows_dlq or 0
    there = [c for c in dlq.commits if (c.query, c.batch) == (newest.query, newest.batch)]
    if len(there) > 1 or any(c.added != wanted for c in there):
        held = " and ".join(f"{c.added:,} rows" for c in there)
        return Refusal(f"batch {newest.batch} of Silver has {wanted:,} rows for the DLQ, and the DLQ has {held} of it")
    if there or not wanted:
        return 0
    if not dlq.whole and not (dlq.commits and dlq.commits[0].at < newest.at):
        return Refusal(f"whether the DLQ has the {wanted:,} rows of batch {newest.batch} of Silver cannot be known: its retained history begins later")
    return wanted


class _Files:
    """Bronze's files in the order in which Silver's source reads them, numbered from the oldest that is looked at."""

    def __init__(self, source: Source) -> None:
        self.all: list[File] = []
        self._at: dict[int, tuple[int, int]] = {NO_SNAPSHOT: (0, 0)} if source.whole else {}
        for appended in source.appended:
            self._at[appended.snapshot] = (len(self.all), len(appended.files))
            self.all += appended.files

    def has(self, snapshot: int) -> bool:
        return snapshot in self._at

    def positions(self, snapshot: int) -> range:
        """Where a batch that reached a snapshot can have ended."""
        first, count = self._at[snapshot]
        return range(first, first + count + 1)

    def content(self, begin: int, end: int) -> tuple[int, dict[str, Span]]:
        """The rows of some files, and per Kafka partition their first offset and the one after the last."""
        found: dict[str, Span] = {}
        for file in self.all[begin:end]:
            for piece in file.pieces:
                first, after = found.get(piece.partition, (piece.first, piece.next))
                found[piece.partition] = (min(first, piece.first), max(after, piece.next))
        return sum(file.rows for file in self.all[begin:end]), found

    def place_of(self, batch: Commit | None, number: int) -> Place | None:
        """Where a batch ended that read all before a file, in the snapshot that it says it reached. None when it cannot have ended there.

        Of a batch that is not retained, or whose snapshot is not, the place is in the file's own snapshot.
        """
        if batch is not None and batch.bronze_snapshot in self._at:
            inside, there = batch.bronze_snapshot, self._at[batch.bronze_snapshot]
            if not there[0] <= number <= sum(there):
                return None
        else:
            inside, there = next(((s, at) for s, at in self._at.items() if at[0] <= number < sum(at)), list(self._at.items())[-1])
        return Place(inside, number - there[0] if inside != NO_SNAPSHOT else BEGINNING)


def _span(table: Chain, tail: Sequence[Commit], files: _Files, source: Source) -> tuple[int, int] | Refusal:
    """The files that the newest batch has read, as first and the one after the last; both the same for a batch without rows."""
    read = next((c for c in tail if c.rows_read), None)
    if read is None:
        of_others = any(c.query not in (None, tail[0].query) for c in table.commits)
        if tail[-1].batch != 0 or of_others or not source.whole:
            return Refusal(f"no batch with rows is left in Silver's history before batch {tail[0].batch}, so nothing says what was read of Bronze")
        return 0, 0
    if read.bronze_snapshot is None or not files.has(read.bronze_snapshot):
        return Refusal(f"Bronze snapshot {read.bronze_snapshot}, which batch {read.batch} of Silver reached, is no longer on main")
    before = next((c.bronze_snapshot for c in tail[tail.index(read) + 1 :]), None)
    begins = files.positions(before) if before is not None and files.has(before) else None
    said = read.rows_read, {p.partition: (p.first, p.next) for p in read.pieces or ()}
    found, short = [], False
    for end in files.positions(read.bronze_snapshot):
        begin = _begin(read, end, files)
        if begin is None:
            short = True
        elif (begins is None or begin in begins) and files.content(begin, end) == said:
            found.append((begin, end))
    if short and begins is None and not source.whole:
        return Refusal(f"Bronze no longer retains enough snapshots before {read.bronze_snapshot} to tell what batch {read.batch} of Silver read")
    if len(found) != 1:
        how = f"{len(found)} runs of files" if found else "no run of files"
        return Refusal(
            f"batch {read.batch} of Silver says that it read {read.rows_read:,} rows of Bronze up to snapshot {read.bronze_snapshot}, {_offsets(read)}: "
            f"{how} in Bronze can be what it read"
        )
    begin, end = found[0]
    return (begin, end) if read is tail[0] else (end, end)


def _begin(batch: Commit, end: int, files: _Files) -> int | None:
    """The first of as many files before `end` as hold the rows of a batch, or more with the last of them. None when all hold fewer."""
    begin, rows = end, 0
    while begin > 0 and rows < (batch.rows_read or 0):
        begin -= 1
        rows += files.all[begin].rows
    return begin if rows >= (batch.rows_read or 0) else None


def _offsets(batch: Commit) -> str:
    return "; ".join(f"partition {p.partition} {_text((p.first, p.next))}" for p in batch.pieces or ())


def _text(span: Span) -> str:
    return f"[{span[0]:,}, {span[1]:,})"


def _list(faults: Sequence[Fault]) -> str:
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return "; ".join(str(f) for f in faults[:SHOWN]) + more
