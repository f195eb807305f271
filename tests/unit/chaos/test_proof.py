"""Commits that no current driver made must be seen in a table's history; so must every loss in the summary."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from k2.chaos.journal import Result
from k2.chaos.proof import Proof, stale_commits
from k2.chaos.show import holds, line, summary
from k2.feeds.audit import Audit
from k2.reconcile.compare import PartitionResult

PARTITION = PartitionResult("t", 0, 10, 10, 10, 0, 0, 0, 0, 0, 0)
PROOF = Proof([PARTITION], {"a": Audit()}, {"a": Audit()}, [])
ROUND = Result(1, ("driver killed", "host agent killed"), ("s", "platform"), "SIGKILL 1", 0.4, "s DEAD", 5.2, "s #2 spare")


def silver(fence: int, batch: int, query: str = "q") -> dict[str, str]:
    return {"k2.fence": str(fence), "k2.batch-id": str(batch), "k2.query-id": query}


def bronze(fence: int, batch: int) -> dict[str, str]:
    return {"k2.fence": str(fence), "spark.sql.streaming.epochId": str(batch), "spark.sql.streaming.queryId": "q"}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.sampled_from([silver, bronze]))
def test_fences_that_rise_are_right(steps: list[int], make: object) -> None:
    """Whatever the steps."""
    fences = [1 + sum(steps[: n + 1]) for n in range(len(steps))]
    assert stale_commits({"t": [make(fence, batch) for batch, fence in enumerate(fences)]}) == []  # type: ignore[operator]


def test_a_fence_that_falls_is_named() -> None:
    """With its table, batch and both fences."""
    assert stale_commits({"t": [bronze(1, 1), bronze(2, 2), bronze(1, 3)]}) == ["t: batch 3 was committed with fence 1 after fence 2"]


def test_a_batch_twice_is_named() -> None:
    """Also under a higher fence, which would be a doubled batch."""
    assert stale_commits({"t": [silver(1, 1), silver(2, 1)]}) == ["t: batch 1 was committed after batch 1"]


def test_two_writers_of_one_table_and_maintenance_are_told_apart() -> None:
    """The dead-letter table has two queries, each with its own fence and batches; compaction has neither."""
    assert stale_commits({"dlq": [silver(9, 4), silver(1, 1, "other"), {"operation": "replace"}, silver(9, 5), silver(1, 2, "other")]}) == []


def test_summary_of_a_good_run() -> None:
    """In one line, with every fault counted."""
    assert summary([ROUND], PROOF) == "[bold green]0 lost, 0 doubled, 0 stale commits, 2 faults, all streams back[/]"


def test_summary_tells_every_kind_of_loss() -> None:
    """Records that are missing or changed, doubled ones, stale commits, rounds that failed and faults that could not be done."""
    audit = Audit(missing=3, changed_count=1)
    bad = Proof([replace(PARTITION, not_in_bronze=1, in_neither=2, doubled_below=4)], {"a": audit}, {"a": Audit(missing=1)}, ["x"])
    rounds = [ROUND, replace(ROUND, number=2, trouble="not back"), replace(ROUND, number=3, skipped=True)]
    assert "certificates not green: s" in summary([ROUND], replace(PROOF, certificates={"s": "fences failed: batch 3", "r": ""}))
    expected = "[bold red]6 lost, 4 doubled, 1 stale commits, 4 faults, round 2 failed (2 faults found nothing to hurt)[/]"
    assert summary(rounds, bad) == expected


def test_a_kind_that_was_never_done_is_no_pass() -> None:
    """Planned is not done; once is enough."""
    kill, freeze = replace(ROUND, kinds=("killed",)), replace(ROUND, kinds=("frozen",), skipped=True)
    assert summary([kill, freeze], PROOF).startswith("[bold red]") and summary([kill, freeze], PROOF).endswith("never done: frozen[/]")
    assert not holds([kill, freeze], PROOF) and holds([kill, freeze, replace(freeze, skipped=False)], PROOF)


def test_what_the_feeds_missed_is_no_loss() -> None:
    """A killed feed hears nothing: that is a gap, which is listed."""
    assert Proof([PARTITION], {"a": Audit(missing=5)}, {"a": Audit(missing=5)}, []).lost == 0


def test_a_round_in_a_line() -> None:
    """What was seen and how the streams came back, or what failed."""
    assert line(ROUND).strip() == "SIGKILL 1; found after 0.4 s (s DEAD); back after 5.2 s: s #2 spare"
    assert "not back" in line(replace(ROUND, trouble="not back", recovered=None))
