"""Wishes of people, and how far they are fulfilled."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from k2.airflow.control import Selection, Wish, fulfilled_already, progress, select
from k2.airflow.forms import declared_streams, stream_choice
from k2.registry.observed import Verdict, Wanted
from k2.registry.platform import load_platform

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
