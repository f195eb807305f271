"""The decision rule for what dies: poison, crash loops, what does not fit, and dependencies that are down."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import (
    Action,
    Death,
    ExitCode,
    Failure,
    FailureClass,
    Reading,
    Verdict,
)
from k2.supervision.breaker import level
from k2.supervision.judge import judge

from .observations import CHECKPOINT, DIED, DRIVER, HEAD, NOW, OLD, RESTART, SPEC, STATUS, WANTED, ago, decide, seen, verdict

BLAMED = Failure("ArithmeticException-1", 10, {"trades": {"2": [[40, 40]]}}, True)


QUERY_DIED = replace(DIED, exit_code=ExitCode.QUERY_FAILED, failure=BLAMED)


def before(number: int, *, kind: FailureClass = FailureClass.INFRASTRUCTURE, failure: Failure = BLAMED, **fields: Any) -> tuple[Death, ...]:
    """So many deaths, the newest of fence 4."""
    return tuple(Death(4 - n, 2, ago(20 + 10 * n), kind, fields.get("exit_code", 71), fields.get("commits", 0), failure) for n in range(number))


def test_the_same_failure_at_the_same_batch_is_started_once_more_and_then_held() -> None:
    """The first failure is tried again, the second is poison, and names its records."""
    assert verdict(driver=QUERY_DIED) == (Verdict.DEAD, Action.START)
    found = decide(driver=QUERY_DIED, wanted=replace(WANTED, deaths=1, lately=before(1, kind=FailureClass.QUERY, failure=BLAMED)))
    assert (found.verdict, found.action) == (Verdict.POISONED, Action.NONE)
    assert "trades partition 2 offset 40" in found.because and "ArithmeticException-1" in found.because and "all of the batch" not in found.because
    vague = replace(BLAMED, narrowed=False)
    vaguely = decide(driver=replace(QUERY_DIED, failure=vague), wanted=replace(WANTED, deaths=1, lately=before(1, kind=FailureClass.QUERY, failure=vague)))
    assert "all of the batch: those that fail could not be told from the others" in vaguely.because
    asked = replace(WANTED, generation=3, lately=before(2, kind=FailureClass.QUERY, failure=BLAMED))
    assert verdict(driver=QUERY_DIED, wanted=asked) == (Verdict.STARTING, Action.START), "a person may ask for another attempt"


def test_what_does_not_fit_is_held() -> None:
    """Until a person asks for a start."""
    lost = replace(DIED, exit_code=ExitCode.INCOMPATIBLE, ended_at=ago(10**6))
    assert verdict(driver=lost) == (Verdict.INCOMPATIBLE, Action.NONE)
    assert verdict(driver=lost, wanted=replace(WANTED, generation=3)) == (Verdict.STARTING, Action.START)


def test_a_crash_loop_is_held_until_the_bucket_has_leaked() -> None:
    """Verdict and moment are clear, and so is the batch at which it dies."""
    wanted = replace(WANTED, deaths=4, first_commit_at=None, first_commit_batch=None, lately=before(4))
    found = decide(driver=replace(DIED, exit_code=71), wanted=wanted, checkpoint=replace(CHECKPOINT, last_offset_batch=10))
    assert (found.verdict, found.action) == (Verdict.CRASH_LOOP, Action.WAIT)
    assert found.not_before is not None and timedelta(0) < found.not_before - NOW < timedelta(minutes=13)
    assert "at batch 10" in found.because
    assert verdict(driver=replace(DIED, exit_code=71), wanted=replace(wanted, generation=3)) == (Verdict.STARTING, Action.START)


def test_a_checkpoint_that_cannot_be_read_is_told_with_the_death() -> None:
    """A reading of now that failed, and none that nobody made."""
    assert "its checkpoint cannot be read: v9" in decide(driver=DIED, checkpoint=Reading[Any](ago(0.1), error="v9")).because
    assert "cannot be read" not in decide(driver=DIED, checkpoint=Reading[Any](ago(86400), error="it was not read yet")).because


def test_a_hang_that_restarts_did_not_help_is_held_too() -> None:
    """It keeps its verdict, and waits."""
    hangs = {
        "head": replace(HEAD, lag_rows=3),
        "checkpoint": replace(CHECKPOINT, last_offset_batch=10, last_offset_at=ago(4000)),
        "status": replace(STATUS, tasks_at=None),
    }
    hung = replace(WANTED, verdict=Verdict.HUNG_PROCESSING, verdict_since=ago(100))
    assert verdict(wanted=hung, **hangs) == (Verdict.HUNG_PROCESSING, Action.START)
    wanted = replace(hung, lately=before(8, exit_code=None), first_commit_batch=9)
    assert verdict(wanted=wanted, **hangs) == (Verdict.HUNG_PROCESSING, Action.WAIT)


def test_a_loser_is_followed_by_a_new_start() -> None:
    """Exit 86 does not count, and its next start waits longer only while nobody gets on."""
    loser = replace(DIED, exit_code=ExitCode.FENCED)
    assert verdict(driver=loser, wanted=replace(WANTED, deaths=7)) == (Verdict.DEAD, Action.START)
    assert verdict(driver=loser, wanted=replace(WANTED, first_commit_batch=None, lately=before(3, kind=FailureClass.FENCED))) == (Verdict.DEAD, Action.WAIT)


@given(
    st.sampled_from([*ExitCode, -9, -15, None, 3]),
    st.lists(st.sampled_from(FailureClass), max_size=20),
    st.lists(st.integers(0, 3), min_size=20, max_size=20),
    st.booleans(),
)
def test_a_death_after_any_history_has_an_answer(code: int | None, kinds: list[FailureClass], commits: list[int], same: bool) -> None:
    """Poison and what does not fit never restart; only a start on request or the passing of time does what is held."""
    lately = tuple(Death(4 - n, 2, ago(10 + 10 * n), kind, 70, commits[n], BLAMED if same else Failure("x", n)) for n, kind in enumerate(kinds))
    found = decide(driver=replace(DIED, exit_code=code, failure=BLAMED), wanted=replace(WANTED, deaths=len(kinds), lately=lately))
    if code == ExitCode.QUERY_FAILED and same and FailureClass.QUERY in kinds:
        assert (found.verdict, found.action) == (Verdict.POISONED, Action.NONE)
    elif code in (ExitCode.INCOMPATIBLE, ExitCode.CONFIG):
        assert found.action is not Action.START
    else:
        assert found.verdict in (Verdict.DEAD, Verdict.CRASH_LOOP) and found.action in (Action.START, Action.WAIT)
        assert found.action is not Action.WAIT or found.not_before is not None


AWAY = Reading[Any](ago(0.1), error="KafkaAway: no answer", silent="kafka")


LOST_KAFKA = replace(DIED, exit_code=ExitCode.DEPENDENCY, failure=Failure("TimeoutException-1", dependency="kafka"))


def test_a_driver_is_left_alone_while_its_broker_does_not_answer_the_watchdog() -> None:
    """Whatever else it looks like: nothing can be known of its work, and a restart would not help."""
    for parts in (
        {},
        {"status": replace(STATUS, last_event_at=ago(900))},
        {"wanted": replace(WANTED, first_commit_at=None, intent_at=ago(901), launched_at=ago(900)), "driver": replace(DRIVER, started_at=ago(900))},
        {"checkpoint": replace(CHECKPOINT, last_offset_batch=10, last_offset_at=ago(900))},
    ):
        found = decide(head=AWAY, **parts)
        assert (found.verdict, found.action, found.dependency) == (Verdict.WAITING_DEPENDENCY, Action.NONE, "kafka")
    assert verdict(head=Reading(ago(OLD), error="KafkaAway", silent="kafka")) == (Verdict.UNKNOWN, Action.NONE), "but not by an old word"


def test_a_death_of_a_dependency_waits_for_it() -> None:
    """Held while it does not answer the watchdog either, asked for while that is not known, started as soon as it does."""
    found = decide(driver=LOST_KAFKA, head=AWAY)
    assert (found.verdict, found.action, found.dependency) == (Verdict.WAITING_DEPENDENCY, Action.WAIT, "kafka")
    unread = decide(driver=LOST_KAFKA, head=Reading(ago(86400), error="it was not read yet"))
    assert (unread.verdict, unread.action, unread.dependency) == (Verdict.WAITING_DEPENDENCY, Action.WAIT, None)
    assert verdict(driver=LOST_KAFKA) == (Verdict.DEAD, Action.START)
    assert verdict(driver=LOST_KAFKA, wanted=replace(WANTED, deaths=9)) == (Verdict.DEAD, Action.START), "it does not count"
    lately = before(2, kind=FailureClass.DEPENDENCY)
    assert verdict(driver=LOST_KAFKA, wanted=replace(WANTED, first_commit_batch=None, lately=lately)) == (Verdict.DEAD, Action.WAIT), (
        "for this driver alone it is away"
    )
    lost = replace(LOST_KAFKA, failure=Failure("PSQLException-1", dependency="catalog"))
    assert verdict(driver=lost) == (Verdict.DEAD, Action.START), "the watchdog has just asked the catalog's database"


def test_whatever_a_bronze_stream_died_of_it_waits_for_kafka() -> None:
    """A start would have to ask it; a look that has not asked believes the last one. Silver asks nothing of Kafka."""
    found = decide(driver=DIED, head=AWAY)
    assert (found.verdict, found.action, found.dependency) == (Verdict.WAITING_DEPENDENCY, Action.WAIT, "kafka")
    unread = Reading[Any](ago(86400), error="it was not read yet")
    assert verdict(driver=DIED, head=unread) == (Verdict.DEAD, Action.START)
    held = decide(driver=DIED, head=unread, wanted=replace(WANTED, verdict=Verdict.WAITING_DEPENDENCY))
    assert (held.verdict, held.action, held.dependency) == (Verdict.WAITING_DEPENDENCY, Action.WAIT, None), "nobody is accused who was not asked"
    assert verdict(driver=DIED, wanted=replace(WANTED, verdict=Verdict.WAITING_DEPENDENCY)) == (Verdict.DEAD, Action.START)
    silver = judge(SPEC.model_copy(update={"reads": "bronze"}), seen(driver=DIED, head=AWAY), RESTART, NOW)
    assert (silver.verdict, silver.action) == (Verdict.DEAD, Action.START)


def test_after_an_outage_a_query_is_given_time_to_speak() -> None:
    """Its silence counts from the moment when the broker answered again."""
    silent = {"status": replace(STATUS, last_event_at=ago(900)), "head": replace(HEAD, lag_rows=3)}
    long_ago = {"verdict": Verdict.HUNG_SOURCE, "verdict_since": ago(60)}
    assert verdict(wanted=replace(WANTED, answered={"kafka": ago(5)}, **long_ago), **silent) == (Verdict.PROGRESSING, Action.NONE)
    for no_excuse in ({"kafka": ago(100)}, {"schema_registry": ago(5)}, {"kafka": ago(-3000)}):
        assert verdict(wanted=replace(WANTED, answered=no_excuse, **long_ago), **silent) == (Verdict.HUNG_SOURCE, Action.START), (
            "long ago, of a dependency that it does not have, or written down before the clock was set back"
        )


@given(st.sampled_from(["kafka", "catalog", "schema_registry", None]), st.lists(st.sampled_from(FailureClass), max_size=20), st.booleans())
def test_a_dependency_that_is_down_never_counts_and_never_starts_anything(dependency: str | None, kinds: list[FailureClass], running: bool) -> None:
    """Whatever died before: while Kafka is away, what died of it is held, and so is what runs."""
    lately = tuple(Death(4 - n, 2, ago(10 + 10 * n), kind, 75) for n, kind in enumerate(kinds))
    driver = DRIVER if running else replace(LOST_KAFKA, failure=Failure("x", dependency=dependency))
    found = decide(driver=driver, head=AWAY, wanted=replace(WANTED, lately=lately, deaths=len(kinds)))
    if running or dependency == "kafka":
        assert found.action in (Action.NONE, Action.WAIT) and found.verdict in (Verdict.WAITING_DEPENDENCY, Verdict.CRASH_LOOP)
    assert level(RESTART, [replace(d, kind=FailureClass.DEPENDENCY) for d in lately], 2, NOW) == 0
