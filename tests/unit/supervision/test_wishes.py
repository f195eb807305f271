"""Wishes of people, and how far they are fulfilled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.airflow.forms import ACTIONS, declared_streams, stream_choice
from k2.registry.observed import ExitCode, Verdict, Wanted
from k2.registry.platform import load_platform
from k2.registry.wishes import Selection, Standing, Wish
from k2.supervision.wishes import End, asking, fulfilled_already, in_order, needs_approval, objections, progress, select, targets

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PLATFORM = load_platform()


def wanted(desired: str = "running", generation: int = 3, *, launched_for: int | None = 3, ended: bool = False, committed: bool = False) -> Wanted:
    return Wanted(
        desired,
        generation,
        fence=9,
        launch_generation=launched_for,
        intent_at=NOW if launched_for else None,
        launched_at=NOW if launched_for else None,
        first_commit_at=NOW if committed else None,
        ended_at=NOW if ended else None,
    )


@pytest.mark.parametrize(
    ("choice", "streams"),
    [
        ("silver_kraken", ["silver_kraken"]),
        ("bronze", ["bronze_binance", "bronze_kraken"]),
        ("silver", ["silver_binance", "silver_kraken"]),
        ("all", ["bronze_binance", "bronze_kraken", "silver_binance", "silver_kraken"]),
    ],
)
def test_select(choice: str, streams: list[str]) -> None:
    """One stream, a layer, or all of them, in the registry's order."""
    assert select(choice, PLATFORM) == streams


def test_unknown_choice_is_refused_with_the_known_ones() -> None:
    """A name that no stream has acts on nothing."""
    with pytest.raises(ValueError, match="'gold' names no stream: use one of bronze_binance"):
        select("gold", PLATFORM)


def test_every_word_of_the_form_selects_something() -> None:
    """Form, registry and code agree: whatever a person can choose names streams."""
    choices = stream_choice().schema["enum"]
    assert all(select(choice, PLATFORM) for choice in choices)
    assert set(Selection) | set(PLATFORM.streams) == set(choices)
    assert set(ACTIONS) == set(Wish)
    assert declared_streams() == {name: spec.type for name, spec in PLATFORM.streams.items()}


@pytest.mark.parametrize(
    ("wish", "now", "already"),
    [
        (Wish.START, wanted(), True),
        (Wish.START, wanted(ended=True), False),
        (Wish.START, wanted("stopped", ended=True), False),
        (Wish.START, wanted(launched_for=None), False),
        (Wish.STOP, wanted("stopped"), True),
        (Wish.STOP, wanted(), False),
        (Wish.RESTART, wanted(), False),
    ],
)
def test_asking_for_what_is_so_disturbs_nothing(wish: Wish, now: Wanted, already: bool) -> None:
    """Starting what runs must not replace its driver; a restart always does."""
    assert fulfilled_already(wish, now) == already


@pytest.mark.parametrize(
    ("desired", "now", "verdict", "reached", "over"),
    [
        ("running", wanted(committed=True), Verdict.STARTING, True, True),
        ("running", wanted(), Verdict.IDLE, True, True),
        ("running", wanted(), Verdict.PROGRESSING, True, True),
        ("running", wanted(), Verdict.STARTING, False, False),
        ("running", wanted(), None, False, False),
        ("running", wanted(launched_for=2, committed=True), Verdict.PROGRESSING, False, False),
        ("running", wanted(committed=True, ended=True), Verdict.IDLE, False, False),
        ("running", wanted(launched_for=None), None, False, False),
        ("stopped", wanted("stopped"), Verdict.STOPPING, False, False),
        ("stopped", wanted("stopped", ended=True), Verdict.STOPPING, True, True),
        ("stopped", wanted("stopped", launched_for=None), None, True, True),
        ("running", wanted("stopped", 4), Verdict.STOPPING, False, True),
        ("stopped", wanted("running", 4, launched_for=4, committed=True), Verdict.IDLE, False, True),
        ("running", wanted("running", 4, launched_for=4, committed=True), Verdict.IDLE, True, True),
    ],
)
def test_progress(desired: str, now: Wanted, verdict: Verdict | None, reached: bool, over: bool) -> None:
    """A wish, recorded as generation 3, is fulfilled by a launch of its own or a later one, and lost to an opposite request."""
    found = progress(desired, 3, now, verdict, "because")
    assert (found.reached, found.over) == (reached, over)
    assert found.because


def standing(stream: str = "bronze_kraken", **more: Any) -> Standing:
    """A stream that runs and is idle."""
    fields: dict[str, Any] = {"desired": "running", "generation": 3, "fence": 9, "runs": True, "verdict": "IDLE", "because": "all is committed", "seen_at": NOW}
    return Standing(stream, **{**fields, "query_id": "q", "batch": 7, "lag_rows": 12, **more})


STOPPED: dict[str, Any] = {"desired": "stopped", "runs": False, "verdict": "STOPPED"}
REWIND: dict[str, Any] = {"runs": False, "verdict": "REWIND", "because": "its checkpoint ends with batch 3, and batch 7 was committed"}


@pytest.mark.parametrize(
    ("wish", "now", "words"),
    [
        (Wish.START, standing(), None),
        (Wish.START, standing(**STOPPED), None),
        (Wish.STOP, standing(), None),
        (Wish.STOP, standing(verdict=None, seen_at=None), None),
        (Wish.STOP, standing(verdict="UNKNOWN"), None),
        (Wish.RESTART, standing(), None),
        (Wish.RESTART, standing(**STOPPED), "use action 'start'"),
        (Wish.ADOPT, standing(**REWIND), None),
        (Wish.ADOPT, standing(), "it is IDLE, and only a stream that is held as REWIND needs that: use action 'restart'"),
        (Wish.ADOPT, standing(**REWIND | {"seen_at": NOW - timedelta(minutes=6)}), "has not judged it for 6 min"),
        (Wish.ADOPT, standing(verdict=None, seen_at=None), "has not judged it for ever"),
        (Wish.START, standing(**REWIND), "held as REWIND (its checkpoint ends with batch 3, and batch 7 was committed), which a start does not override"),
        (Wish.START, standing(**REWIND | {"seen_at": NOW - timedelta(minutes=6)}), None),
        (Wish.SKIP_POISON, standing(runs=False, verdict="POISONED"), None),
        (Wish.SKIP_POISON, standing(**REWIND), "only a stream that is held as POISONED"),
        (Wish.REBUILD, standing(**REWIND), None),
        (Wish.REBUILD, standing(runs=False, verdict="INCOMPATIBLE"), None),
        (Wish.REBUILD, standing(**STOPPED), None),
        (Wish.REBUILD, standing(**STOPPED | {"verdict": None, "seen_at": None}), None),
        (Wish.REBUILD, standing(), "it is IDLE and its checkpoint is whole, so nothing has to be made again: use action 'restart', or 'stop' it first"),
        (Wish.REBUILD, standing(runs=False, verdict="DEAD"), "it is DEAD and its checkpoint is whole"),
        (Wish.REBUILD, standing(**REWIND | {"seen_at": NOW - timedelta(minutes=6)}), "has not judged it for 6 min"),
        (Wish.START, standing(runs=False, verdict="POISONED"), None),
        (Wish.UPGRADE, standing(), None),
        (Wish.UPGRADE, standing(**STOPPED), "nothing to upgrade: use action 'start'"),
        (Wish.UPGRADE, standing(runs=False, verdict="DEAD"), "nothing to upgrade"),
        (Wish.UPGRADE, standing(batch=None), "nothing to try the new code against: use action 'restart'"),
    ],
)
def test_a_request_must_make_sense(wish: Wish, now: Standing, words: str | None) -> None:
    """The objection names the field, its value, the stream and what to do instead."""
    found = objections(wish, now.stream, [now], NOW)
    if words is None:
        assert found == []
    else:
        assert len(found) == 1 and found[0].startswith(f"action: '{wish}' of bronze_kraken: ") and words in found[0]


def test_a_broken_checkpoint_is_made_again_whatever_its_stream_does() -> None:
    """Its next start would be held, or worse."""
    for now in (standing(), standing(runs=False, verdict="DEAD"), standing(verdict=None, seen_at=None)):
        assert objections(Wish.REBUILD, now.stream, [now], NOW, broken="metadata is missing") == []


@pytest.mark.parametrize("wish", [Wish.ADOPT, Wish.REBUILD, Wish.SKIP_POISON])
@pytest.mark.parametrize("choice", Selection)
def test_some_things_are_done_to_one_stream_at_a_time(wish: Wish, choice: Selection) -> None:
    """Whatever the streams are, and the streams to choose from are named."""
    (found,) = objections(wish, choice, [standing(**REWIND), standing("silver_kraken")], NOW)
    assert found == f"stream: '{choice}' with action '{wish}': that is done to one stream at a time: choose one of bronze_kraken, silver_kraken"


RETIRED: dict[str, Any] = {**STOPPED, "retired": "its checkpoint x is retired, since then, by ann: nobody reads it"}


@pytest.mark.parametrize("wish", [Wish.START, Wish.RESTART, Wish.UPGRADE, Wish.ADOPT, Wish.SKIP_POISON])
def test_a_retired_stream_is_brought_back_first(wish: Wish) -> None:
    """Whatever would start it says who retired it, and of several it is left alone; it can be stopped, restored and rebuilt."""
    (found,) = objections(wish, "bronze_kraken", [standing(**RETIRED)], NOW)
    assert "by ann: nobody reads it: use action 'restore' to bring it back, or 'rebuild'" in found
    mixed = [standing(**RETIRED), standing("bronze_binance")]
    assert targets(wish, "bronze", mixed) == ["bronze_binance"] and targets(Wish.STOP, "bronze", mixed) == ["bronze_kraken", "bronze_binance"]
    assert all(objections(other, "bronze_kraken", [standing(**RETIRED)], NOW) == [] for other in (Wish.STOP, Wish.REBUILD, Wish.RESTORE))
    if wish in (Wish.START, Wish.RESTART, Wish.UPGRADE):
        (found,) = objections(wish, "bronze", mixed[:1], NOW)
        assert found.endswith("all of its streams are stopped or retired: use action 'restore' for one of them")


def test_an_upgrade_of_several_is_for_all_of_them() -> None:
    """One that could not be tried keeps the others waiting, but one that somebody has stopped does not."""
    assert objections(Wish.UPGRADE, "bronze", [standing(), standing("bronze_binance", **STOPPED)], NOW) == []
    (found,) = objections(Wish.UPGRADE, "bronze", [standing(), standing("bronze_binance", batch=None)], NOW)
    assert found.startswith("action: 'upgrade' of bronze_binance: it has not committed a batch yet")


def test_a_restart_of_several_leaves_alone_what_was_stopped() -> None:
    """Somebody stopped it for a reason; when all are stopped, the request makes no sense."""
    mixed = [standing("bronze_binance", **STOPPED), standing()]
    assert objections(Wish.RESTART, "all", mixed, NOW) == []
    assert targets(Wish.RESTART, "all", mixed) == ["bronze_kraken"]
    assert targets(Wish.START, "all", mixed) == ["bronze_binance", "bronze_kraken"]
    (found,) = objections(Wish.RESTART, "all", mixed[:1], NOW)
    assert found.endswith("all of its streams are stopped: use action 'start'")


@given(
    st.sampled_from(Wish),
    st.sampled_from([*Selection, "bronze_kraken"]),
    st.sampled_from(["running", "stopped"]),
    st.booleans(),
    st.sampled_from([*Verdict, None]),
)
def test_stopping_is_always_possible(wish: Wish, choice: str, desired: str, runs: bool, verdict: Verdict | None) -> None:
    """No state of a stream keeps a person from stopping it, and whatever is refused has a reason and a way out."""
    found = objections(wish, choice, [standing(desired=desired, runs=runs, verdict=verdict)], NOW)
    assert wish is not Wish.STOP or found == []
    assert all(":" in sentence and ("use action" in sentence or "choose" in sentence or "ask again" in sentence) for sentence in found)


def test_readers_stop_first_and_start_last() -> None:
    """Silver ends before the Bronze that it reads, and starts after it."""
    streams = list(PLATFORM.streams)
    assert [name.split("_")[0] for name in in_order(Wish.STOP, streams, PLATFORM)] == ["silver", "silver", "bronze", "bronze"]
    assert [name.split("_")[0] for name in in_order(Wish.START, reversed(streams), PLATFORM)] == ["bronze", "bronze", "silver", "silver"]


@pytest.mark.parametrize(
    ("wish", "choice", "needed"),
    [
        (Wish.START, "all", False),
        (Wish.RESTART, "all", False),
        (Wish.STOP, "bronze_kraken", False),
        (Wish.STOP, "bronze", True),
        (Wish.STOP, "all", True),
        (Wish.ADOPT, "bronze_kraken", True),
        (Wish.REBUILD, "bronze_kraken", True),
        (Wish.RETIRE, "bronze_kraken", True),
        (Wish.RESTORE, "bronze_kraken", True),
        (Wish.SKIP_POISON, "silver_kraken", True),
        (Wish.UPGRADE, "bronze_kraken", False),
    ],
)
def test_what_needs_an_approval(wish: Wish, choice: str, needed: bool) -> None:
    """What may lose or double records, and what silences several streams."""
    assert needs_approval(wish, choice) == needed


def test_the_question_says_what_will_happen() -> None:
    """Who, what, why, which streams and how far behind they are, why one is held, what can go wrong, and what no answer means."""
    body = asking("ann", Wish.ADOPT, "bronze_kraken", "restored from yesterday", [standing(**REWIND)], {"bronze_kraken": "sound at batch 3"}, PLATFORM)
    for words in ("**ann** asks for **adopt** of **bronze_kraken**: restored from yesterday", "| bronze_kraken | REWIND | 12 | 7 | sound at batch 3 |"):
        assert words in body
    for words in ("its checkpoint ends with batch 3", "in its tables twice", "never read", "No answer within 30 minutes is a no"):
        assert words in body
    rebuilt = asking("ann", Wish.REBUILD, "bronze_kraken", "its disk was lost", [standing(**REWIND)], {}, PLATFORM, "A new query goes on. Lost: nothing")
    for words in (
        "its checkpoint ends with batch 3",
        "**Found now:** A new query goes on. Lost: nothing.\n",
        "into the quarantine, whole",
        "not started and held",
    ):
        assert words in rebuilt
    poisoned = asking("ann", Wish.SKIP_POISON, "silver_kraken", "broken by the vendor", [standing(because="batch 8 failed twice")], {}, PLATFORM)
    assert "batch 8 failed twice" in poisoned and "Silver never has them" in poisoned
    unknown = asking("ann", Wish.STOP, "all", "moving house", [standing(verdict=None, lag_rows=None, batch=None)], {}, PLATFORM)
    assert "| bronze_kraken | not judged yet | cannot be known | none | none |" in unknown and "7 days" in unknown


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (End(4, True, 0), "drained: every batch that it had planned is committed"),
        (End(4, False, -9), "did not drain, it was killed at the deadline (exit code -9)"),
        (End(4, False, ExitCode.CUT_SHORT), "did not drain, it left with a planned batch"),
        (End(4, None, None), "not known"),
    ],
)
def test_a_stop_says_whether_it_drained(end: End, words: str) -> None:
    """In the sentence of a stop that is done and of a restart that is done, and never more than is known."""
    assert words in str(end) and "fence 4" in str(end)
    assert words in progress("stopped", 3, wanted("stopped", ended=True), Verdict.STOPPED, "", end).because
    assert words in progress("running", 3, wanted(committed=True), Verdict.IDLE, "", end).because
