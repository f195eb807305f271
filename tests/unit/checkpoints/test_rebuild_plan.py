"""Where a stream whose checkpoint is lost goes on, as its tables prove, or why nothing proves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.checkpoints.rebuild_plan import Begin, BronzePlan, Fault, FaultKind, Place, Refusal, SilverPlan, plan_bronze, plan_silver, tail_of_silver
from k2.probes.rebuilding import Appended, Bronze, File, Held, Source
from k2.registry.history import NO_SNAPSHOT, Chain, Commit, Piece

T0 = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = "t"
NEW = "0f1e2d3c-0000-4000-8000-000000000000"


# Bronze


def bronze(**partitions: list[tuple[int, int]]) -> Bronze:
    """What is held per partition, as p0=[(0, 5)]."""
    return Bronze({name[1:]: held_of(*spans) for name, spans in partitions.items()}, files=4, opened=0)


def held_of(*spans: tuple[int, int], doubled: tuple[tuple[int, int], ...] = (), topic: str = TOPIC) -> Held:
    return Held(spans, doubled, frozenset({topic}), T0)


def planned(held: Bronze, starts: Mapping[str, int], ends: Mapping[str, int], **accepted: Sequence[tuple[int, int]]) -> BronzePlan | Refusal:
    return plan_bronze(TOPIC, held, starts, ends, NEW, {name[1:]: spans for name, spans in accepted.items()})


def refused(found: BronzePlan | SilverPlan | Refusal) -> Refusal:
    assert isinstance(found, Refusal), found
    return found


def test_bronze_goes_on_behind_its_last_record() -> None:
    """Per partition; one that it has none of begins where Kafka's log begins, and that is said."""
    plan = planned(bronze(p0=[(3, 10)], p2=[(0, 7)]), {"0": 5, "1": 0, "2": 0}, {"0": 12, "1": 50, "2": 7})
    assert isinstance(plan, BronzePlan) and plan.lost == {}
    assert plan.begins == (Begin("0", 10, (5, 12), (3, 10)), Begin("1", 0, (0, 50), None), Begin("2", 7, (0, 7), (0, 7)))
    assert plan.sentence() == (
        f"A new query {NEW} goes on in topic t: partition 0 from 10 (Bronze has [3, 10), Kafka ends at 12); "
        "partition 1 from 0, where Kafka's log begins, because Bronze has none of it; partition 2 from 7 (Bronze has [0, 7), Kafka ends at 7). "
        "Proven by the bounds of 4 files that Bronze has each record up to there once. Lost: nothing."
    )


def test_what_kafka_has_deleted_is_lost_and_named() -> None:
    """The query begins where the log begins now, so that Spark does not stop at offsets that are gone."""
    plan = planned(bronze(p0=[(0, 10)]), {"0": 2_000}, {"0": 2_500})
    assert isinstance(plan, BronzePlan) and plan.begins[0].offset == 2_000 and plan.lost == {"0": (10, 2_000)}
    assert "partition 0 from 2,000 (Bronze has [0, 10), Kafka ends at 2,500), because Kafka has deleted [10, 2,000)" in plan.sentence()
    assert plan.sentence().endswith("Lost: 1,990 records that Kafka has deleted.")


def test_what_kafka_has_deleted_of_a_partition_that_bronze_has_none_of_counts_as_lost() -> None:
    """It can have been read and be gone from Bronze, or never have been read: whoever approves has to know that."""
    plan = planned(bronze(p0=[(0, 10)]), {"0": 0, "1": 40}, {"0": 10, "1": 50})
    assert isinstance(plan, BronzePlan) and plan.lost == {"1": (0, 40)}
    assert plan.begins[1] == Begin("1", 40, (40, 50), None, (0, 40))
    assert plan.sentence().startswith(
        f"A new query {NEW} goes on in topic t: partition 0 from 10 (Bronze has [0, 10), Kafka ends at 10); partition 1 from 40, where Kafka's log begins, "
        "because Bronze has none of it (Kafka has deleted [0, 40): whether that was ever read cannot be known, so it counts as lost). "
    )
    assert plan.sentence().endswith("Lost: 40 records that Kafka has deleted.")


@pytest.mark.parametrize(
    ("held", "ends", "words"),
    [
        (bronze(p0=[(0, 10)]), {"0": 9}, "made anew or cut: partition 0 ends at 9, and Bronze has records up to 10"),
        (bronze(p0=[(0, 5)], p1=[(0, 1)]), {"0": 9}, "made anew: Bronze has records of partition 1, and Kafka has no such partition"),
        (Bronze({"0": held_of((0, 5), topic="old")}, 1, 0), {"0": 9}, "of topic old, and the stream reads t"),
    ],
)
def test_another_topic_is_refused(held: Bronze, ends: dict[str, int], words: str) -> None:
    """Whatever its offsets mean, they do not mean what Bronze's do."""
    found = refused(planned(held, dict.fromkeys(ends, 0), ends, p0=[(0, 99)]))
    assert words in found.reason and found.faults == ()


def test_a_topic_that_has_grown_longer_than_the_one_before_is_refused() -> None:
    """Its record at Bronze's last offset is another one. Where Kafka no longer has that, nothing can be compared."""
    held = bronze(p0=[(0, 1_000)], p1=[(0, 5)])
    ask = lambda **at: plan_bronze(TOPIC, held, {"0": 0, "1": 0}, {"0": 5_000, "1": 9}, NEW, {}, {name[1:]: one for name, one in at.items()})  # noqa: E731
    assert isinstance(ask(), BronzePlan) and ask(p0=T0) == ask(p0=T0, p1=T0) == ask()
    assert refused(ask(p0=T0 + timedelta(milliseconds=7), p1=T0)).reason == (
        "topic t was made anew or cut: record 999 of partition 0 was written at 2026-01-01 00:00:00.000 UTC as Bronze has it, "
        "and the one that Kafka holds there at 2026-01-01 00:00:00.007 UTC"
    )
    assert "record 4 of partition 1" in refused(ask(p0=T0, p1=T0 - timedelta(milliseconds=1))).reason


def test_a_gap_is_refused_until_it_is_accepted() -> None:
    """Named with what Kafka still has of it. Accepting less than all of it is not enough."""
    held = Bronze({"0": held_of((0, 5), (9, 20))}, files=3, opened=1)
    faults = (Fault(FaultKind.MISSING, "0", (5, 9), held=2),)
    ask = lambda *accepted: planned(held, {"0": 7}, {"0": 30}, p0=list(accepted))  # noqa: E731
    found = refused(ask())
    assert found.faults == faults
    assert "partition 0: [5, 9) missing, and Kafka may still hold 2 of them." in found.reason
    assert refused(ask((0, 4), (5, 8))).faults == faults
    plan = ask((2, 4), (8, 9), (5, 8))
    assert isinstance(plan, BronzePlan) and plan.accepted == faults and plan.begins[0].offset == 20
    assert "3 files and the columns of 1 of them that Bronze has each record up to there once, except what is accepted: partition 0: [5, 9)" in plan.sentence()


def test_what_is_doubled_is_refused_whatever_was_accepted_as_lost() -> None:
    """A loss is no word on records that are there twice."""
    held = Bronze({"0": held_of((0, 5), (9, 20), doubled=((2, 4), (12, 15)))}, files=3, opened=1)
    doubled = Fault(FaultKind.DOUBLED, "0", (2, 4)), Fault(FaultKind.DOUBLED, "0", (12, 15))
    found = refused(planned(held, {"0": 0}, {"0": 30}, p0=[(0, 20)]))
    assert found.faults == doubled
    assert "cannot be proven: partition 0: [2, 4) doubled; partition 0: [12, 15) doubled. Nobody has accepted these as lost" in found.reason


def test_a_proof_of_some_days_says_so() -> None:
    """What was not looked at is not proven."""
    plan = planned(replace(bronze(p0=[(0, 5)]), since=date(2026, 3, 1)), {"0": 0}, {"0": 5})
    assert isinstance(plan, BronzePlan) and "that Bronze has each record of the days since 2026-03-01 up to there once" in plan.sentence()


# Silver


@dataclass(frozen=True)
class Story:
    """What happened: Bronze's snapshots, and where each batch of Silver ended, as the number of files read and the snapshot reached."""

    source: Source
    ends: list[int]
    table: Chain
    dlq: Chain

    def numbered(self, place: Place) -> int:
        """The files before a place."""
        before = 0
        for appended in self.source.appended:
            if appended.snapshot == place.snapshot:
                return before + place.position
            before += len(appended.files)
        assert place == Place(NO_SNAPSHOT, -1)
        return 0


def told(snapshots: list[list[tuple[int, int]]], limits: list[int], again: Mapping[int, int] | None = None) -> Story:
    """Silver reads snapshots of files (partition, rows), a batch for each limit of rows, as Iceberg's source does: whole files, up to the one that
    reaches the limit, and on into later snapshots. `again`: snapshots before which some records of partition 0 are read from Kafka once more."""
    offsets: dict[int, int] = {}
    appended = []
    for number, files in enumerate(snapshots):
        offsets[0] = max(0, offsets.get(0, 0) - (again or {}).get(number, 0))
        made = []
        for partition, rows in files:
            first = offsets.get(partition, 0)
            made.append(File(rows, (Piece(str(partition), first, first + rows, rows),)))
            offsets[partition] = first + rows
        appended.append(Appended(100 + number, tuple(made)))
    files = [(a.snapshot, file) for a in appended for file in a.files]
    at, ends, silver, dlq = 0, [], [], []
    for batch, limit in enumerate(limits):
        begin, rows = at, 0
        while at < len(files) and rows < limit:
            rows += files[at][1].rows
            at += 1
        # Behind the last file it goes on into snapshots without files.
        reached = files[at - 1][0] if at < len(files) else appended[-1].snapshot if appended else NO_SNAPSHOT
        spans: dict[str, tuple[int, int]] = {}
        for _, file in files[begin:at]:
            piece = file.pieces[0]
            known = spans.get(piece.partition, (piece.first, piece.next))
            spans[piece.partition] = min(known[0], piece.first), max(known[1], piece.next)
        bad = rows // 3
        commit = Commit(1000 + batch, T0 + timedelta(seconds=batch), "append", added=rows - bad, query="s", batch=batch)
        pieces = tuple(Piece(p, *span) for p, span in spans.items())
        silver.append(replace(commit, rows_read=rows, rows_silver=rows - bad, rows_dlq=bad, bronze_snapshot=reached, pieces=pieces))
        if bad:
            dlq.append(replace(commit, added=bad, rows_dlq=bad))
        ends.append(at)
    return Story(Source(tuple(appended), whole=True), ends, Chain(silver, whole=True), Chain(dlq, whole=True))


def plan_of(story: Story, **changes: Any) -> SilverPlan | Refusal:
    given_ = {"table": story.table, "dlq": story.dlq, "source": story.source, "known_query": "s"} | changes
    return plan_silver(**given_)


THREE = [[(0, 30), (1, 30), (2, 30)]] * 4


def test_silver_plans_its_newest_batch_again() -> None:
    """From where the batch before ended to where it ended itself, both seen from the snapshots that they say they reached."""
    story = told(THREE, [40, 40, 40])
    plan = plan_of(story)
    assert isinstance(plan, SilverPlan)
    assert (plan.query, plan.batch, plan.begin, plan.end, plan.rows, plan.owed) == ("s", 2, Place(101, 1), Place(101, 3), (60, 40, 20), 0)
    assert plan_of(story, known_query=None) == plan
    assert plan.sentence() == (
        "Query s goes on behind batch 2, which Silver has, in Bronze snapshot 101 behind 3 of its files. "
        "Proven by the rows and offsets that the batch says it read: one run of Bronze's files has just these, and no other. "
        "The batch is planned once more, and the writer stops if its 60 rows are not 40 of Silver and 20 of the DLQ again. Lost: nothing."
    )


def test_a_batch_that_the_dlq_lacks_is_finished() -> None:
    """Killed between the two tables, its rows are owed; a DLQ with others than it says is a riddle, and one whose history begins later an unknown."""
    story = told(THREE, [40, 40])
    lacking = Chain(story.dlq.commits[:-1], whole=True)
    plan = plan_of(story, dlq=lacking)
    assert isinstance(plan, SilverPlan) and plan.owed == 20 and "; the DLQ lacks its 20 rows and will get them." in plan.sentence()
    assert plan_of(story, dlq=Chain(lacking.commits, whole=False)) == plan, "what it retains is older than the batch"
    later = [replace(c, at=T0 + timedelta(hours=1), query="another") for c in lacking.commits]
    for unknown in (Chain([], whole=False), Chain(later, whole=False)):
        assert "cannot be known: its retained history begins later" in refused(plan_of(story, dlq=unknown)).reason
    wrong = [*lacking.commits, replace(story.dlq.commits[-1], added=19)]
    assert refused(plan_of(story, dlq=Chain(wrong, whole=True))).reason == "batch 1 of Silver has 20 rows for the DLQ, and the DLQ has 19 rows of it"
    twice = [*story.dlq.commits, replace(story.dlq.commits[-1], snapshot=7)]
    assert refused(plan_of(story, dlq=Chain(twice, whole=True))).reason.endswith("the DLQ has 20 rows and 20 rows of it")


def test_a_silver_that_was_rolled_back_is_refused() -> None:
    """Batches under the numbers of those that are gone: the DLQ, which has rows of these numbers, would take none of theirs."""
    story = told(THREE, [40] * 6)
    cut = Chain(story.table.commits[:-2], whole=True)
    words = "Silver was rolled back: its newest batch is 3 of query s, and the DLQ has batch 5."
    assert refused(plan_of(story, table=cut)).reason.startswith(words)
    sparse = Chain([*story.dlq.commits[:4], story.dlq.commits[5]], whole=True)
    assert refused(plan_of(story, table=cut, dlq=sparse)).reason.startswith(words), "batches between may have had no rows for it"
    both = Chain(story.dlq.commits[:-2], whole=True)
    assert refused(plan_of(story, table=cut, dlq=both, known_batch=4)).reason.startswith(
        "Silver was rolled back: its newest batch is 3 of query s, and its checkpoint had committed batch 4."
    )
    others = Chain([*both.commits, replace(both.commits[-1], query="kraken", batch=99)], whole=True)
    assert isinstance(plan_of(story, table=cut, dlq=others, known_batch=3), SilverPlan), "the DLQ has batches of other streams too"


def test_the_first_batch_needs_none_before_it() -> None:
    """It begins where the oldest snapshot does, or before the first one."""
    plan = plan_of(told(THREE, [40]))
    assert isinstance(plan, SilverPlan) and (plan.batch, plan.begin, plan.end) == (0, Place(100, 0), Place(100, 2))
    plan = plan_of(told([], [40]))
    assert isinstance(plan, SilverPlan) and plan.begin == plan.end == Place(NO_SNAPSHOT, -1)


def test_batches_without_rows_stand_where_the_last_rows_were() -> None:
    """Bronze commits an empty batch when it begins anew, and so does Silver."""
    story = told([[(0, 5)], [], []], [9])
    (first,) = story.table.commits
    empty = [replace(first, snapshot=2000 + n, batch=n, rows_read=0, rows_silver=0, rows_dlq=0, added=0, pieces=(), bronze_snapshot=100 + n) for n in (1, 2)]
    ended = replace(first, bronze_snapshot=100)
    plan = plan_of(story, table=Chain([ended, *empty], whole=True))
    assert isinstance(plan, SilverPlan) and (plan.batch, plan.begin, plan.end) == (2, Place(101, 0), Place(102, 0))
    wrong = replace(empty[1], bronze_snapshot=NO_SNAPSHOT)
    assert "and what was read ends elsewhere" in refused(plan_of(story, table=Chain([ended, empty[0], wrong], whole=True))).reason


def test_a_query_without_any_rows_stands_at_the_beginning() -> None:
    """If that is still there, and if no query before it has read anything."""
    story = told([[], [(0, 5)]], [])
    empty = Commit(1000, T0, "append", query="s", batch=0, rows_read=0, rows_silver=0, rows_dlq=0, bronze_snapshot=100, pieces=())
    plan = plan_of(story, table=Chain([empty], whole=True))
    assert isinstance(plan, SilverPlan) and plan.end == Place(100, 0) and story.numbered(plan.begin) == 0
    for table, source in (
        (Chain([empty], whole=True), replace(story.source, whole=False)),
        (Chain([replace(empty, batch=3)], whole=False), story.source),
        (Chain([replace(empty, query="older", batch=7), empty], whole=True), story.source),
    ):
        assert "no batch with rows is left in Silver's history" in refused(plan_of(story, table=table, source=source)).reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": "other"}, "is of query other, and the stream's is s"),
        ({"batch": 7}, "batch 7 of Silver follows batch 1"),
        ({"batch": 1}, "batch 1 of Silver follows batch 1"),
        ({"bronze_snapshot": None}, "does not say which batch it is"),
        ({"bronze_snapshot": 4711}, "Bronze snapshot 4711, which batch 2 of Silver reached, is no longer on main"),
        ({"bronze_snapshot": 103}, "no run of files in Bronze can be what it read"),
        ({"rows_read": 59}, "no run of files in Bronze can be what it read"),
        ({"pieces": (Piece("1", 30, 60), Piece("2", 31, 60))}, "partition 2 [31, 60): no run of files"),
    ],
)
def test_what_contradicts_bronze_is_refused(change: dict[str, Any], words: str) -> None:
    """The newest batch is changed in one respect."""
    story = told(THREE, [40, 40, 40])
    commits = [*story.table.commits[:-1], replace(story.table.commits[-1], **change)]
    assert words in refused(plan_of(story, table=Chain(commits, whole=True))).reason


def test_runs_of_files_that_cannot_be_told_apart_are_refused() -> None:
    """Bronze has the same records twice, and the batch can have ended behind either."""
    story = told([[(0, 5)], [(1, 5), (0, 5)]], [10], again={1: 5})
    assert story.ends == [2]
    commits = [replace(story.table.commits[0], batch=3)]
    assert "2 runs of files in Bronze can be what it read" in refused(plan_of(story, table=Chain(commits, whole=False))).reason
    later = Source(story.source.appended[1:], whole=False)
    assert "Bronze no longer retains enough snapshots" in refused(plan_of(story, table=Chain(commits, whole=False), source=later)).reason


def test_the_batch_before_tells_them_apart() -> None:
    """Where it ended, this one began."""
    story = told([[(2, 5)], [(0, 5)], [(1, 5), (0, 5)]], [5, 10], again={2: 5})
    plan = plan_of(story)
    assert isinstance(plan, SilverPlan) and (plan.begin, plan.end) == (Place(100, 1), Place(102, 1))


@pytest.mark.parametrize(("whole", "words"), [(True, "a start without a checkpoint reads Bronze from its beginning"), (False, "nothing says what was read")])
def test_a_silver_without_batches_has_no_place(whole: bool, words: str) -> None:
    """Whether nothing was ever written, or nothing is left to tell of it."""
    assert words in refused(plan_of(told(THREE, []), table=Chain([], whole=whole))).reason


def test_only_what_is_needed_is_asked_of_silver() -> None:
    """Back to the last batch with rows and the one before it."""
    story = told(THREE, [40] * 6)
    tail = tail_of_silver(story.table)
    assert not isinstance(tail, Refusal) and [c.batch for c in tail] == [5, 4]


SNAPSHOTS = st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=3), min_size=1, max_size=8)


@given(SNAPSHOTS, st.lists(st.integers(1, 12), min_size=1, max_size=8), st.dictionaries(st.integers(1, 7), st.integers(1, 6), max_size=2), st.data())
def test_a_plan_is_where_silver_stood(snapshots: list[list[tuple[int, int]]], limits: list[int], again: dict[int, int], data: st.DataObject) -> None:
    """Whatever Bronze looks like, doubled records too, and whatever has expired: the batch is planned as it was, or not at all."""
    story = told(snapshots, limits, again)
    commits = story.table.commits[data.draw(st.integers(0, len(limits) - 1)) :]
    table = Chain(commits, whole=len(commits) == len(limits))
    kept = story.source.appended[data.draw(st.integers(0, len(snapshots) - 1)) :]
    source = Source(kept, whole=len(kept) == len(snapshots))
    plan = plan_of(story, table=table, source=source)
    if isinstance(plan, Refusal):
        assert again or not (table.whole and source.whole), plan
        return
    begin = story.ends[-2] if len(story.ends) > 1 else 0
    assert (plan.batch, story.numbered(plan.begin), story.numbered(plan.end)) == (len(limits) - 1, begin, story.ends[-1])
