"""The certificate: clean histories with kills, replays, compactions and expiry are green; any one thing wrong in them turns it red."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from k2.registry.certificate import Certificate, Color, Result, digest
from k2.registry.history import Chain, Commit, History, Launch, Piece, Plans
from k2.supervision.certificate import certify
from k2.supervision.lineage import batches_text

T0 = datetime(2026, 1, 1, tzinfo=UTC)
QUERY = "query-a"
PARTITIONS = ("0", "1", "2")


def commit(number: int, **fields: Any) -> Commit:
    return Commit(
        **{"snapshot": 1000 + number, "at": T0 + timedelta(seconds=10 * number), "operation": "append", "query": QUERY, "why_no_pieces": "", **fields}
    )


def compaction(number: int, rows: int) -> Commit:
    return commit(number, operation="replace", query=None, added=rows, removed=rows, files=1)


def bronze_batch(number: int, batch: int, fence: int, ends: dict[str, int], grow: dict[str, int]) -> tuple[Commit, dict[str, int]]:
    """A batch that adds `grow` records per partition, and where it ends."""
    after = {p: ends[p] + grow[p] for p in PARTITIONS}
    pieces = tuple(Piece(p, ends[p], after[p], grow[p]) for p in PARTITIONS if grow[p])
    return commit(number, batch=batch, fence=fence, added=sum(grow.values()), files=len(pieces), pieces=pieces), after


def bronze(batches: int = 6, restarts: tuple[int, ...] = (3,), compacted: tuple[int, ...] = (), in_flight: bool = False, grow: int = 2) -> History:
    """A stream of Bronze from its first batch, with a new fence at each restart and a compaction behind each batch of `compacted`."""
    commits: list[Commit] = []
    ends = dict.fromkeys(PARTITIONS, 0)
    plans: dict[int, dict[str, int]] = {}
    fence = 1
    for batch in range(batches):
        fence += batch in restarts
        made, ends = bronze_batch(len(commits), batch, fence, ends, {p: grow + (batch + int(p)) % 3 for p in PARTITIONS})
        commits.append(made)
        plans[batch] = ends
        if batch in compacted:
            commits.append(compaction(len(commits), 7))
    committed = batches - 2 if in_flight else batches - 1
    return History(
        stream="bronze_x",
        layer="bronze",
        fence=fence,
        known_query=QUERY,
        table=Chain(commits, whole=True),
        plans=Plans(QUERY, committed, batches - 1, ends=plans),
        launches={f: Launch() for f in range(1, fence + 1)},
    )


def silver(history: History, dlq_in: tuple[int, ...] = (1, 4)) -> History:
    """Silver over that Bronze: batch n reads Bronze's batch n, and has one bad row in the batches of `dlq_in`."""
    commits, dlq, positions = [], [], {}
    assert history.table is not None and history.plans is not None
    for source in history.table.commits:
        if source.query is None:
            continue
        bad = int(source.batch in dlq_in)
        counts = {"rows_read": source.added, "rows_silver": source.added - bad, "rows_dlq": bad, "bronze_snapshot": source.snapshot}
        pieces = tuple(replace(p, rows=None) for p in source.pieces or ())
        made = commit(len(commits) + 500, batch=source.batch, fence=source.fence, added=source.added - bad, files=1, pieces=pieces, **counts)
        commits.append(made)
        if bad:
            dlq.append(replace(made, snapshot=made.snapshot + 5000, at=made.at + timedelta(seconds=1), added=bad))
        positions[source.batch] = (source.snapshot, source.files)
    plans = replace(history.plans, ends={}, positions=positions)
    return replace(history, stream="silver_x", layer="silver", table=Chain(commits, True), plans=plans, dlq=Chain(dlq, True), bronze=history.table)


def table_of(history: History, change: Callable[[list[Commit]], list[Commit]]) -> History:
    assert history.table is not None
    return replace(history, table=replace(history.table, commits=change(list(history.table.commits))))


def check(certificate: Certificate, name: str) -> Any:
    return next(c for c in certificate.checks if c.name == name)


def test_a_clean_history_is_green() -> None:
    """Batches of two launches with a compaction between: covered whole, nothing to say against them."""
    found = certify(bronze(compacted=(2,)))
    assert found.color is Color.GREEN, found.sentence()
    assert (found.first, found.last, found.batches, found.fences) == (0, 5, 6, (1, 2))
    assert found.rows == sum(c.added for c in bronze().table.commits)  # type: ignore[union-attr]
    assert found.sentence().endswith("nothing lost, nothing doubled")
    assert certify(silver(bronze())).color is Color.GREEN


def test_a_batch_in_flight_is_not_covered_yet() -> None:
    """In the table and not in the commit log: the successor will skip it, and it is covered then."""
    found = certify(bronze(in_flight=True))
    assert found.color is Color.GREEN and found.last == 4


def test_what_has_expired_is_not_covered() -> None:
    """The beginning of the chain is gone: the rest is green, and it begins where metadata begins."""
    history = table_of(bronze(), lambda commits: commits[3:])
    found = certify(replace(history, table=replace(history.table, whole=False)))  # type: ignore[type-var]
    assert (found.color, found.first) == (Color.GREEN, 3)
    assert certify(history).color is Color.RED, "the same with nothing expired is a loss"


def test_nothing_left_to_cover_is_unknown() -> None:
    """No batch, no table, no checkpoint: never green."""
    for history in (
        replace(bronze(), table=Chain([], False)),
        replace(bronze(), table=None, unread={"table": "OSError: gone"}),
        replace(bronze(), plans=None, unread={"checkpoint": "OSError: gone"}),
        replace(bronze(), known_query=None),
    ):
        assert certify(history).color is Color.UNKNOWN
    assert "OSError: gone" in certify(replace(bronze(), table=None, unread={"table": "OSError: gone"})).sentence()


def test_files_that_cannot_be_read_leave_their_batches_unknown() -> None:
    """Offsets of batch 2 are not known, and neither are they in the checkpoint: unknown, with its name; with the plan they are known."""

    def unreadable(commits: list[Commit]) -> list[Commit]:
        commits[2] = replace(commits[2], pieces=None, why_no_pieces="OSError: gone")
        return commits

    history = table_of(bronze(), unreadable)
    assert certify(history).color is Color.GREEN
    found = certify(replace(history, plans=replace(history.plans, ends={})))  # type: ignore[type-var]
    assert found.color is Color.UNKNOWN
    assert check(found, "offsets continue").evidence == "cannot be known for batch 2: OSError: gone"


def test_an_accepted_loss_is_told_and_not_red() -> None:
    """A gap is accepted for what a person accepted at that start, and for no record more."""
    history = bronze(restarts=(3,))

    def shifted(commits: list[Commit]) -> list[Commit]:
        first = commits[3].pieces[0]  # type: ignore[index]
        lost = replace(first, first=first.first + 1, rows=first.rows - 1)  # type: ignore[operator]
        commits[3] = replace(commits[3], pieces=(lost, *commits[3].pieces[1:]), added=commits[3].added - 1)  # type: ignore[index]
        return commits

    broken = table_of(history, shifted)
    start = history.table.commits[3].pieces[0].first  # type: ignore[union-attr,index]
    assert certify(broken).color is Color.RED
    accepted = certify(replace(broken, launches={1: Launch(), 2: Launch(adopted=True, lost={"0": (start, start + 1)})}))
    assert accepted.color is Color.GREEN, accepted.sentence()
    assert "accepted by a person: partition 0" in check(accepted, "offsets continue").evidence
    for lost in ({"0": (start + 1, start + 2)}, {"1": (start, start + 1)}, {}):
        assert certify(replace(broken, launches={1: Launch(), 2: Launch(adopted=True, lost=lost)})).color is Color.RED


def test_a_partition_that_was_lost_whole_goes_on_with_a_later_driver() -> None:
    """Nothing of it was left for the driver that was allowed to pass it by; its successor begins behind the accepted range."""
    history = bronze(restarts=(2, 4))

    def emptied(commits: list[Commit]) -> list[Commit]:
        for index in (2, 3):
            kept = tuple(p for p in commits[index].pieces or () if p.partition != "0")
            commits[index] = replace(commits[index], pieces=kept, added=sum(p.rows or 0 for p in kept))
        return commits

    end, first = (history.table.commits[i].pieces[0] for i in (1, 4))  # type: ignore[union-attr,index]
    lost = {"0": (end.next, first.first)}
    broken = replace(table_of(history, emptied), launches={1: Launch(), 2: Launch(adopted=True, lost=lost), 3: Launch()})
    found = certify(broken)
    assert found.color is Color.GREEN, found.sentence()
    assert certify(replace(broken, launches={1: Launch(), 2: Launch(), 3: Launch()})).color is Color.RED


def test_another_query_needs_a_person() -> None:
    """A table that a second query goes on writing is red, unless its first launch was adopted."""
    history = table_of(bronze(), lambda cs: [*cs[:3], *(replace(c, query="query-b", batch=(c.batch or 0) - 3) for c in cs[3:])])
    history = replace(history, known_query="query-b", plans=Plans("query-b", 2, 2))
    assert check(certify(history), "same query").result is Result.FAILED
    adopted = certify(replace(history, launches={1: Launch(), 2: Launch(adopted=True)}))
    assert adopted.color is Color.GREEN, adopted.sentence()


def another_query(begin: int = 3, shift: int = 0) -> History:
    """Batches from `begin` on are of a second query, from fence 2; its first one begins `shift` records later in partition 0."""

    def change(commits: list[Commit]) -> list[Commit]:
        later = [replace(c, query="query-b", batch=(c.batch or 0) - begin) for c in commits[begin:]]
        first = later[0].pieces[0]  # type: ignore[index]
        moved = replace(first, first=first.first + shift, rows=first.rows - shift)  # type: ignore[operator]
        later[0] = replace(later[0], pieces=(moved, *later[0].pieces[1:]), added=later[0].added - shift)  # type: ignore[index]
        return [*commits[:begin], *later]

    return replace(table_of(bronze(), change), known_query="query-b", plans=Plans("query-b", 2, 2))


def test_a_query_whose_checkpoint_was_made_again_goes_on_where_the_table_ended() -> None:
    """That is checked, and said; of one that was adopted in any other way nothing is known."""
    rebuilt = {1: Launch(), 2: Launch(adopted=True, rebuilt=True)}
    found = certify(replace(another_query(), launches=rebuilt))
    assert found.color is Color.GREEN, found.sentence()
    assert check(found, "offsets continue").evidence == "3 partitions without a gap; query query-b goes on where query-a ended with batch 2"
    for shift, words in ((1, "1 records missing"), (-1, "1 records doubled")):
        wrong = certify(replace(another_query(shift=shift), launches=rebuilt))
        assert wrong.color is Color.RED and check(wrong, "offsets continue").evidence.endswith(f"batch 2 ended at {_end(2)}: {words}")
        assert certify(replace(another_query(shift=shift), launches={1: Launch(), 2: Launch(adopted=True)})).color is Color.GREEN


def test_what_was_lost_before_it_was_made_again_is_told_and_not_red() -> None:
    """Just these offsets; one more is red."""
    history = another_query(shift=1)
    lost = {"0": (_end(2), _end(2) + 1)}
    found = certify(replace(history, launches={1: Launch(), 2: Launch(adopted=True, lost=lost, rebuilt=True)}))
    assert found.color is Color.GREEN and "accepted by a person: partition 0" in check(found, "offsets continue").evidence
    assert certify(replace(another_query(shift=2), launches={1: Launch(), 2: Launch(True, lost, True)})).color is Color.RED


def test_a_driver_that_died_before_its_first_commit_leaves_its_word_to_the_next() -> None:
    """The checkpoint was made again for fence 2, and fence 3 committed first; an adoption after that is what counts."""
    moved = table_of(another_query(), lambda cs: [replace(c, fence=3) if c.query == "query-b" else c for c in cs])
    history = replace(moved, fence=3, launches={1: Launch(), 2: Launch(adopted=True, rebuilt=True), 3: Launch()})
    found = certify(history)
    assert found.color is Color.GREEN and "goes on where query-a ended" in check(found, "offsets continue").evidence
    adopted = certify(replace(history, launches={**history.launches, 3: Launch(adopted=True)}))
    assert "query query-a gave way to query-b at batch 0" in check(adopted, "offsets continue").evidence
    assert check(certify(replace(history, launches={1: Launch(adopted=True, rebuilt=True), 3: Launch()})), "same query").result is Result.FAILED


def _end(batch: int) -> int:
    """Where a batch of partition 0 ends."""
    return next(p.next for p in bronze().table.commits[batch].pieces if p.partition == "0")  # type: ignore[union-attr]


def test_the_checkpoint_must_be_the_one_it_was() -> None:
    """Another id than the known one, and none at all, are red."""
    history = bronze()
    assert certify(replace(history, known_query="other")).color is Color.RED
    assert certify(replace(history, plans=replace(history.plans, query=None))).color is Color.RED  # type: ignore[type-var]


def test_since_and_limit_bound_what_is_covered() -> None:
    """From the batch where an earlier certificate ended, and never more than the newest commits."""
    assert certify(bronze(), since=3).first == 3
    assert certify(bronze(), since=99).first == 0
    assert certify(bronze(), limit=2).first == 4
    assert certify(bronze(), since=1, limit=4).first == 2


def test_the_digest_changes_with_every_word() -> None:
    """Two equal certificates have one digest; a changed figure has another."""
    found = certify(bronze()).as_dict()
    assert digest(found) == digest(certify(bronze()).as_dict())
    assert digest(found) != digest({**found, "rows": found["rows"] + 1})


@pytest.mark.parametrize(("numbers", "text"), [([4], "batch 4"), ([1, 2, 3, 9], "batches 1-3, 9"), (range(2), "batches 0-1")])
def test_batches_are_named_in_runs(numbers: Any, text: str) -> None:
    """Neighbours are one run."""
    assert batches_text(numbers) == text


Fault = Callable[[History, int], History | None]


def at(history: History, place: int) -> int:
    """Index of the place-th batch of the stream."""
    own = [i for i, c in enumerate(history.table.commits) if c.query is not None]  # type: ignore[union-attr]
    return own[place % len(own)]


def doubled_epoch(history: History, place: int) -> History:
    return table_of(history, lambda cs: [*cs, replace(cs[at(history, place)], snapshot=9)])


def doubled_rows_of_a_stranger(history: History, place: int) -> History:
    return table_of(history, lambda cs: [*cs, replace(cs[at(history, place)], snapshot=9, query=None, batch=None, fence=None)])


def gap(history: History, place: int) -> History:
    index = at(history, place)
    return table_of(history, lambda cs: cs[:index] + cs[index + 1 :])


def swapped(history: History, place: int) -> History | None:
    index = at(history, place)
    own = [i for i, c in enumerate(history.table.commits) if c.query is not None]  # type: ignore[union-attr]
    if index == own[-1]:
        return None
    other = own[own.index(index) + 1]

    def change(cs: list[Commit]) -> list[Commit]:
        cs[index], cs[other] = cs[other], cs[index]
        return cs

    return table_of(history, change)


def changed(field: Callable[[Commit], dict[str, Any]]) -> Fault:
    def fault(history: History, place: int) -> History:
        index = at(history, place)

        def change(cs: list[Commit]) -> list[Commit]:
            cs[index] = replace(cs[index], **field(cs[index]))
            return cs

        return table_of(history, change)

    return fault


def lost_file(made: Commit) -> dict[str, Any]:
    return {"pieces": made.pieces[:-1]}  # type: ignore[index]


def shrunk_offset(made: Commit) -> dict[str, Any]:
    first, *others = made.pieces  # type: ignore[misc]
    return {"pieces": (replace(first, next=first.next - 1), *others)}


def moved_back(made: Commit) -> dict[str, Any]:
    first, *others = made.pieces  # type: ignore[misc]
    return {"pieces": (replace(first, first=first.first - 1, next=first.next - 1), *others)}


FAULTS: dict[str, Fault] = {
    "a doubled epoch": doubled_epoch,
    "rows that no query wrote": doubled_rows_of_a_stranger,
    "a gap": gap,
    "two batches swapped": swapped,
    "a lost file": changed(lost_file),
    "a shrunk offset": changed(shrunk_offset),
    "a batch that begins too early": changed(moved_back),
    "a foreign fence": changed(lambda made: {"fence": 99}),
    "no fence": changed(lambda made: {"fence": None}),
    "a row more than its files hold": changed(lambda made: {"added": made.added + 1}),
    "rows removed": changed(lambda made: {"operation": "overwrite", "removed": 1}),
    "another query": changed(lambda made: {"query": "query-z"}),
}


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Clean histories: any restarts, compactions, expiry, batches in flight, for Bronze and Silver."""
    batches = draw(st.integers(2, 12))
    numbers = st.integers(1, batches - 1)
    made = bronze(
        batches,
        restarts=tuple(draw(st.sets(numbers))),
        compacted=tuple(draw(st.sets(numbers))),
        in_flight=draw(st.booleans()),
        grow=draw(st.integers(1, 5)),
    )
    if draw(st.booleans()):
        made = silver(made, dlq_in=tuple(draw(st.sets(st.integers(0, batches - 1)))))
    expired = draw(st.integers(0, batches - 2))
    if expired:
        made = table_of(made, lambda commits: commits[expired:])
        made = replace(made, table=replace(made.table, whole=False))  # type: ignore[type-var]
    retained = draw(st.integers(0, batches))
    plans = made.plans
    assert plans is not None
    kept = {b: e for b, e in plans.ends.items() if b >= retained}
    return replace(made, plans=replace(plans, ends=kept, positions={b: p for b, p in plans.positions.items() if b >= retained}))


@given(histories())
def test_every_clean_history_is_green(history: History) -> None:
    """Kills, replays, compactions and expiry are what the platform lives with."""
    found = certify(history)
    assert found.color is Color.GREEN, found.sentence()


@given(histories(), st.sampled_from(sorted(FAULTS)), st.integers(0, 100))
def test_any_single_fault_is_red(history: History, name: str, place: int) -> None:
    """Wherever in the covered batches it lies. The batch in flight is none of them, and a fault of the oldest one may look like expiry."""
    assert history.table is not None and history.plans is not None
    own = [c for c in history.table.commits if c.query is not None]
    target = own[place % len(own)]
    assume(target.batch is not None and target.batch <= history.plans.committed)  # type: ignore[operator]
    if target is own[0] and not history.table.whole:
        assume(name not in ("a gap", "a batch that begins too early", "another query"))
    if sum(c.batch <= history.plans.committed for c in own) == 1:  # type: ignore[operator,misc]
        assume(name != "a batch that begins too early")
    broken = FAULTS[name](history, place)
    assume(broken is not None and broken.table is not None)
    assert broken is not None and broken.table is not None
    if name == "two batches swapped":
        other = broken.table.commits[history.table.commits.index(target)]
        assume(other.batch is not None and other.batch <= history.plans.committed)  # type: ignore[operator]
    found = certify(broken)
    assert found.color is Color.RED, f"{name}: {found.sentence()} {found.checks}"


def test_the_dlq_has_what_the_counts_say() -> None:
    """Missing, doubled, of another size, or there though there were no rows: each is red."""
    history = silver(bronze())
    dlq = list(history.dlq.commits)  # type: ignore[union-attr]
    extra = replace(dlq[0], snapshot=77, batch=2)
    for commits in (dlq[1:], [*dlq, replace(dlq[0], snapshot=78)], [replace(dlq[0], added=2), *dlq[1:]], [*dlq, extra]):
        found = certify(replace(history, dlq=Chain(commits, True)))
        assert found.color is Color.RED and check(found, "dlq is complete").result is Result.FAILED
    expired = certify(replace(history, dlq=Chain(dlq[1:], False)))
    assert check(expired, "dlq is complete").evidence == "cannot be known for batch 1: the DLQ's history begins later"
    assert certify(replace(history, dlq=None, unread={"dlq": "away"})).color is Color.UNKNOWN


def test_silver_reads_all_of_bronze() -> None:
    """Rows of a Bronze snapshot that Silver's positions passed by are missed, also when its own offsets seem to say otherwise."""
    history = silver(bronze(compacted=(1,)))
    assert check(certify(history), "bronze is read").evidence.startswith("5 spans")
    more = [replace(c, added=c.added + 1) if c.batch == 3 else c for c in history.bronze.commits]  # type: ignore[union-attr]
    found = certify(replace(history, bronze=Chain(more, True)))
    assert check(found, "bronze is read").batch == 3 and found.color is Color.RED


def test_a_commit_log_ahead_of_the_table_is_a_loss() -> None:
    """The checkpoint says that batch 6 was committed, the table ends with 5; and the other way round nothing planned it."""
    history = bronze()
    behind = certify(replace(history, plans=replace(history.plans, committed=6, planned=6)))  # type: ignore[type-var]
    assert check(behind, "batches in order").evidence == "batch 6 in the commit log, and not in the table"
    ahead = certify(replace(history, plans=replace(history.plans, committed=3, planned=4)))  # type: ignore[type-var]
    assert check(ahead, "batches in order").evidence == "batch 5 is in the table, and only batches up to 4 were planned"
    assert ahead.color is Color.RED


def test_a_compaction_that_changes_the_number_of_rows_is_red() -> None:
    """Replaced files hold what was in them."""
    history = table_of(bronze(compacted=(2,)), lambda cs: [replace(c, removed=c.removed + 1) if c.operation == "replace" else c for c in cs])
    assert check(certify(history), "rows add up").result is Result.FAILED
