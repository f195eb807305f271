"""The checks of a certificate: each looks at the covered part of a stream's history for one way in which it could be wrong. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from k2.registry.certificate import Check, Result
from k2.registry.history import Commit, History, Launch, Plans, Span


class Seen:
    """The part of a history that is covered. `own`: the commits of the stream's queries, `all`: every commit beside them."""

    def __init__(self, history: History, since: int | None, limit: int | None) -> None:
        self.history = history
        commits = list(history.table.commits) if history.table else []
        newest = next((c.query for c in reversed(commits) if c.query is not None), None)
        self.query = (history.plans.query if history.plans else None) or history.known_query or newest
        begin = next((i for i, c in enumerate(commits) if since is not None and c.query == self.query and c.batch == since), 0)
        if limit is not None:
            begin = max(begin, len(commits) - limit)
        self.whole = bool(history.table and history.table.whole and begin == 0)
        self.all = commits[begin:]
        self.until = history.plans.committed if history.plans and history.plans.query == self.query else None
        self.own = [c for c in self.all if c.query is not None and not self._in_flight(c)]
        self.newest = max((c.batch for c in self.all if c.query == self.query and c.batch is not None), default=None)

    def _in_flight(self, commit: Commit) -> bool:
        """In the table and not in the commit log yet: the batch that a driver is about to end, or that its successor will skip."""
        return self.until is not None and commit.query == self.query and commit.batch is not None and commit.batch > self.until

    def adoption(self, before: Commit, commit: Commit) -> Launch | None:
        """The last launch between two batches, up to the driver of the later one, with which a person let another query go on."""
        between = [f for f, launch in self.history.launches.items() if launch.adopted and (before.fence or 0) < f <= (commit.fence or 0)]
        return self.history.launches[max(between)] if between else None

    def nothing(self) -> Check | None:
        if self.history.table is None:
            return _unknown(f"the table cannot be read: {self.history.unread.get('table')}")
        return None if self.own else _unknown("its table's metadata holds no batch that is in the commit log")

    def covered(self) -> str:
        return batches_text([c.batch for c in self.own if c.batch is not None])


def _passed(evidence: str) -> Check:
    return Check("", Result.PASSED, evidence)


def _failed(evidence: str, batch: int | None = None) -> Check:
    return Check("", Result.FAILED, evidence, batch)


def _unknown(evidence: str, batch: int | None = None) -> Check:
    return Check("", Result.UNKNOWN, evidence, batch)


def batches_text(numbers: Sequence[int]) -> str:
    """`batches 3-5, 9`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ("batch " if len(set(numbers)) == 1 else "batches ") + ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _same_query(seen: Seen) -> Check:
    """The checkpoint is the one that it always was, and one query wrote the table, unless a person adopted another."""
    plans, known = seen.history.plans, seen.history.known_query
    for before, after in zip(seen.own, seen.own[1:], strict=False):
        if before.query != after.query and seen.adoption(before, after) is None:
            return _failed(f"batch {after.batch} is of query {after.query}, the one before of {before.query}, and nobody adopted that", after.batch)
    if plans is None:
        return _unknown(f"the checkpoint cannot be read: {seen.history.unread.get('checkpoint')}")
    if plans.query is None:
        return _failed("the checkpoint has no query id")
    if known is None:
        return _unknown(f"nobody has seen the checkpoint of query {plans.query} before")
    if plans.query != known:
        return _failed(f"the checkpoint belongs to query {plans.query}, and it was that of {known}")
    if seen.own and seen.own[-1].query != plans.query and plans.committed is not None:
        return _failed(f"the newest batch in the table is of query {seen.own[-1].query}, the checkpoint of {plans.query}", seen.own[-1].batch)
    return _passed(f"query {plans.query}")


def _in_order(seen: Seen) -> Check:
    """Each batch once, one after the other, up to the last one in the commit log, and none that was never planned."""
    if seen.whole and not seen.own and seen.until is not None:
        return _failed(f"{batches_text(range(seen.until + 1))} in the commit log, and the table has none of the stream", 0)
    if nothing := seen.nothing():
        return nothing
    places: dict[tuple[str | None, int | None], int] = {}
    before: Commit | None = None
    for commit in seen.own:
        first = places.setdefault((commit.query, commit.batch), commit.snapshot)
        if commit.batch is None:
            return _failed(f"snapshot {commit.snapshot} is of query {commit.query} and names no batch")
        if first != commit.snapshot:
            return _failed(f"batch {commit.batch} is in the table twice: snapshots {first} and {commit.snapshot}", commit.batch)
        if wrong := _step(before, commit, seen.whole):
            return _failed(wrong, commit.batch)
        before = commit
    plans, last = seen.history.plans, seen.own[-1]
    if plans is None:
        return _unknown(f"{seen.covered()} follow on each other; whether more were committed cannot be known: {seen.history.unread.get('checkpoint')}")
    if seen.until is not None and last.query == seen.query and last.batch is not None and last.batch < seen.until:
        return _failed(f"{batches_text(range(last.batch + 1, seen.until + 1))} in the commit log, and not in the table", last.batch + 1)
    if plans.planned is not None and seen.newest is not None and seen.newest > plans.planned:
        return _failed(f"batch {seen.newest} is in the table, and only batches up to {plans.planned} were planned", seen.newest)
    return _passed(f"{seen.covered()}, each once")


def _step(before: Commit | None, commit: Commit, whole: bool) -> str | None:
    """What is wrong with a batch that follows `before` in the table."""
    assert commit.batch is not None
    if before is None:
        return f"the table begins with batch {commit.batch}: {batches_text(range(commit.batch))} missing" if whole and commit.batch > 0 else None
    assert before.batch is not None
    expected = before.batch + 1
    if commit.batch == expected or (commit.query != before.query and commit.batch == 0):
        return None
    if commit.batch < expected:
        return f"batch {commit.batch} follows batch {before.batch}: the numbers went back at snapshot {commit.snapshot}"
    return f"{batches_text(range(expected, commit.batch))} missing between snapshots {before.snapshot} and {commit.snapshot}"


def _spans(commit: Commit) -> dict[str, Span] | str:
    """Per partition what the batch holds, or how its own pieces contradict each other."""
    found: dict[str, Span] = {}
    for piece in sorted(commit.pieces or (), key=lambda p: (p.partition, p.first)):
        before = found.get(piece.partition)
        if before is not None and piece.first != before[1]:
            return _jump(piece.partition, commit.batch, piece.first, commit.batch, before[1])
        found[piece.partition] = (before[0] if before else piece.first, piece.next)
    return found


def _jump(partition: str, batch: int | None, first: int, previous: int | None, end: int) -> str:
    what = f"{first - end} records missing" if first > end else f"{end - first} records doubled"
    where = f"batch {batch} begins at {first}, batch {previous} ended at {end}" if batch != previous else f"within batch {batch} {end} is followed by {first}"
    return f"partition {partition}: {where}: {what}"


def _offsets_continue(seen: Seen) -> Check:
    """Per partition a batch begins where the one before ended, unless that loss was accepted when its driver was started.

    So does the first batch of a query whose checkpoint was made again; of one that a person adopted otherwise, nothing can be said.
    """
    if nothing := seen.nothing():
        return nothing
    ends: dict[str, Span] = {}
    unknown: list[int] = []
    accepted: list[str] = []
    rebuilt: list[str] = []
    why, last = "", seen.own[0]
    for commit in seen.own:
        assert commit.batch is not None or commit.pieces is None
        if commit.query != last.query:
            adoption = seen.adoption(last, commit)
            if adoption is not None and adoption.rebuilt:
                rebuilt.append(f"query {commit.query} goes on where {last.query} ended with batch {last.batch}")
            else:
                accepted.append(f"query {last.query} gave way to {commit.query} at batch {commit.batch}")
                ends = {}
        last = commit
        if commit.pieces is None:
            planned = _planned_ends(seen, commit)
            ends = {p: (end, commit.batch or 0) for p, end in planned.items()} if planned else {}
            if not planned:
                unknown.append(commit.batch or 0)
                why = commit.why_no_pieces
            continue
        spans = _spans(commit)
        if isinstance(spans, str):
            return _failed(spans, commit.batch)
        for partition, (first, end) in spans.items():
            before = ends.get(partition)
            if before is not None and first != before[0]:
                jump = _jump(partition, commit.batch, first, before[1], before[0])
                if not _is_accepted(seen, commit, partition, before[0], first):
                    return _failed(jump, commit.batch)
                accepted.append(jump)
            ends[partition] = (end, commit.batch or 0)
    said = "".join(f"; {sentence}" for sentence in rebuilt) + ("; accepted by a person: " + "; ".join(accepted) if accepted else "")
    if unknown:
        return _unknown(f"cannot be known for {batches_text(unknown)}: {why}{said}", unknown[0])
    return _passed(f"{len(ends)} partitions without a gap{said}")


def _is_accepted(seen: Seen, commit: Commit, partition: str, end: int, first: int) -> bool:
    """Whether the start of this commit's driver, or of one before it, was allowed to pass these offsets by."""
    before = [launch for fence, launch in seen.history.launches.items() if launch.adopted and commit.fence is not None and fence <= commit.fence]
    spans = [launch.lost[partition] for launch in before if partition in launch.lost]
    return any(lost[0] <= end < first <= lost[1] for lost in spans)


def _planned_ends(seen: Seen, commit: Commit) -> Mapping[str, int] | None:
    plans = seen.history.plans
    if plans is None or commit.query != plans.query or commit.batch is None:
        return None
    return plans.ends.get(commit.batch)


def _as_planned(seen: Seen) -> Check:
    """What a batch holds is what the checkpoint planned, for as many batches as that retains."""
    if nothing := seen.nothing():
        return nothing
    plans = seen.history.plans
    if plans is None:
        return _unknown(f"the checkpoint cannot be read: {seen.history.unread.get('checkpoint')}")
    compared = []
    for commit in seen.own:
        if commit.query != plans.query or commit.batch is None:
            continue
        wrong = _unlike_plan(seen, plans, commit)
        if wrong:
            return _failed(wrong, commit.batch)
        if wrong is not None:
            compared.append(commit.batch)
    return _passed(f"{batches_text(compared)} as in the checkpoint" if compared else "the checkpoint retains no plan of these batches")


def _unlike_plan(seen: Seen, plans: Plans, commit: Commit) -> str | None:
    """How a batch differs from its plan, "" when it does not, None when the two cannot be compared."""
    assert commit.batch is not None
    if seen.history.layer == "silver":
        planned = plans.positions.get(commit.batch)
        if planned is None or commit.bronze_snapshot is None:
            return None
        same = planned[0] == commit.bronze_snapshot
        return "" if same else f"batch {commit.batch} was planned up to Bronze snapshot {planned[0]}, and says {commit.bronze_snapshot}"
    start, end = plans.ends.get(commit.batch - 1), plans.ends.get(commit.batch)
    if end is None or (start is None and commit.batch > 0) or commit.pieces is None:
        return None
    spans = _spans(commit)
    if isinstance(spans, str):
        return spans
    for partition in sorted({*spans, *end}):
        began = (start or {}).get(partition)
        planned_span = (began if began is not None else spans.get(partition, (end.get(partition, 0), 0))[0], end.get(partition, 0))
        held = spans.get(partition, (planned_span[1], planned_span[1]))
        if held == planned_span or (planned_span[0] == planned_span[1] and partition not in spans):
            continue
        if held[1] == planned_span[1] and _is_accepted(seen, commit, partition, planned_span[0], held[0]):
            continue
        return f"partition {partition}: batch {commit.batch} was planned as {_text(planned_span)} and holds {_text(held)}"
    return ""


def _text(span: Span) -> str:
    return f"[{span[0]}, {span[1]})" if span[0] != span[1] else "nothing"


def _rows_add_up(seen: Seen) -> Check:
    """Rows added = offsets of the batch; of Silver also rows read = rows of Silver + rows of the DLQ. A compaction keeps their number."""
    if nothing := seen.nothing():
        return nothing
    for commit in seen.all:
        if commit.operation == "replace" and commit.added != commit.removed:
            return _failed(f"snapshot {commit.snapshot} replaced {commit.removed} rows by {commit.added}")
    unknown: list[int] = []
    why = ""
    for commit in seen.own:
        wrong = _silver_rows(commit) if seen.history.layer == "silver" else _bronze_rows(seen, commit)
        if wrong:
            return _failed(f"batch {commit.batch}: {wrong}", commit.batch)
        if wrong is None:
            unknown.append(commit.batch or 0)
            why = commit.why_no_pieces
    if unknown:
        return _unknown(f"cannot be known for {batches_text(unknown)}: {why}", unknown[0])
    return _passed(f"{sum(c.added for c in seen.own):,} rows in {seen.covered()}")


def _bronze_rows(seen: Seen, commit: Commit) -> str | None:
    if commit.pieces is None:
        end, start = _planned_ends(seen, commit), seen.history.plans.ends.get((commit.batch or 0) - 1) if seen.history.plans else None
        if end is None or start is None or set(end) - set(start):
            return None
        planned = sum(end[p] - start[p] for p in end)
        return "" if planned == commit.added else f"it was planned with {planned} records and added {commit.added} rows"
    offsets, rows = sum(p.next - p.first for p in commit.pieces), sum(p.rows or 0 for p in commit.pieces)
    if not offsets == rows == commit.added:
        return f"its files hold {rows} rows over {offsets} offsets, and its commit says {commit.added}"
    return ""


def _silver_rows(commit: Commit) -> str | None:
    read, silver, dlq = commit.rows_read, commit.rows_silver, commit.rows_dlq
    if read is None or silver is None or dlq is None or commit.pieces is None:
        return None
    if read != silver + dlq:
        return f"{read} rows were read, and {silver} went to Silver and {dlq} to the DLQ"
    if commit.added != silver:
        return f"it says {silver} rows of Silver and added {commit.added}"
    offsets = sum(p.next - p.first for p in commit.pieces)
    return "" if offsets == read else f"{read} rows were read over {offsets} offsets"


def _fences_rise(seen: Seen) -> Check:
    """The fence of a commit is never below the one before, and was once raised."""
    if nothing := seen.nothing():
        return nothing
    before = 0
    for commit in seen.own:
        if commit.fence is None:
            return _failed(f"batch {commit.batch} carries no fence", commit.batch)
        if commit.fence < before:
            return _failed(f"batch {commit.batch} carries fence {commit.fence}, a batch before it fence {before}", commit.batch)
        if commit.fence > seen.history.fence or commit.fence not in seen.history.launches:
            return _failed(f"batch {commit.batch} carries fence {commit.fence}, which was never raised", commit.batch)
        before = commit.fence
    return _passed(f"fences {', '.join(str(f) for f in sorted({c.fence for c in seen.own if c.fence}))}")


def _nobody_else(seen: Seen) -> Check:
    """Only the stream adds rows to its table, and nothing removes any; a compaction replaces files."""
    if nothing := seen.nothing():
        return nothing
    for commit in seen.all:
        if commit.operation in ("append", "replace") and commit.query is not None:
            continue
        if commit.operation not in ("append", "replace"):
            return _failed(f"snapshot {commit.snapshot} is a commit of kind {commit.operation}: it removed {commit.removed} rows and added {commit.added}")
        if commit.operation == "append" and commit.added:
            return _failed(f"snapshot {commit.snapshot} added {commit.added} rows, and no query of the stream made it")
    others = sum(c.operation == "replace" for c in seen.all)
    return _passed(f"{len(seen.all) - others} commits of the stream" + (f", {others} compactions" if others else ""))


def _bronze_is_read(seen: Seen) -> Check:
    """Between two positions of Silver at the end of a Bronze snapshot lie as many rows as Silver has read."""
    if nothing := seen.nothing():
        return nothing
    plans, bronze = seen.history.plans, seen.history.bronze
    if plans is None or bronze is None:
        part = "checkpoint" if plans is None else "bronze"
        return _unknown(f"the {part} cannot be read: {seen.history.unread.get(part)}")
    order = {c.snapshot: i for i, c in enumerate(bronze.commits)}
    at: int | None = None
    read, compared = 0, 0
    for commit in seen.own:
        if commit.query != plans.query or commit.batch is None or commit.batch not in plans.positions or commit.rows_read is None:
            at, read = None, 0
            continue
        read += commit.rows_read
        snapshot, position = plans.positions[commit.batch]
        index = order.get(snapshot)
        if index is None:
            at, read = None, 0  # expired, or rolled back: the next position that is on the branch begins anew
        elif position >= bronze.commits[index].files:
            if at is not None:
                there = sum(c.added for c in bronze.commits[at + 1 : index + 1] if c.operation == "append")
                if there != read:
                    return _failed(f"up to batch {commit.batch} {read} rows were read of Bronze snapshots that hold {there}", commit.batch)
                compared += 1
            at, read = index, 0
    return _passed(f"{compared} spans of Bronze" if compared else "no two positions whose Bronze snapshots are retained")


def _dlq_complete(seen: Seen) -> Check:
    """The DLQ has one commit for a batch exactly when it has rows for it, with as many rows."""
    if nothing := seen.nothing():
        return nothing
    dlq = seen.history.dlq
    if dlq is None:
        return _unknown(f"the DLQ cannot be read: {seen.history.unread.get('dlq')}")
    there: dict[tuple[str, int | None], Commit] = {}
    for commit in dlq.commits:
        if commit.query is None:
            continue
        if (before := there.setdefault((commit.query, commit.batch), commit)) is not commit and any(own.query == commit.query for own in seen.own):
            return _failed(f"batch {commit.batch} is in the DLQ twice: snapshots {before.snapshot} and {commit.snapshot}", commit.batch)
    since = None if dlq.whole or not dlq.commits else dlq.commits[0].at
    unknown = []
    for own in seen.own:
        commit = there.get((str(own.query), own.batch))
        if commit is not None and commit.added != own.rows_dlq:
            return _failed(f"batch {own.batch} has {own.rows_dlq} rows for the DLQ, and the DLQ has {commit.added}", own.batch)
        if commit is None and own.rows_dlq != 0:
            if own.rows_dlq is not None and (since is None or since < own.at):
                return _failed(f"batch {own.batch} has {own.rows_dlq} rows for the DLQ, and the DLQ has no commit of it", own.batch)
            unknown.append(own.batch or 0)
    if unknown:
        return _unknown(f"cannot be known for {batches_text(unknown)}: the DLQ's history begins later", unknown[0])
    return _passed(f"{sum(c.rows_dlq or 0 for c in seen.own):,} rows in {sum(bool(c.rows_dlq) for c in seen.own)} commits")


CHECKS: dict[str, Callable[[Seen], Check]] = {
    "same query": _same_query,
    "batches in order": _in_order,
    "offsets continue": _offsets_continue,
    "as planned": _as_planned,
    "rows add up": _rows_add_up,
    "fences rise": _fences_rise,
    "nobody else wrote": _nobody_else,
}
SILVER_CHECKS: dict[str, Callable[[Seen], Check]] = {**CHECKS, "bronze is read": _bronze_is_read, "dlq is complete": _dlq_complete}
