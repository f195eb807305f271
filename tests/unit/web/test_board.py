"""What makes a row good, and a watcher late."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Verdict
from k2.supervision.verdicts import HEALTHY, TROUBLE
from k2.web.board import Board, Tone, tone_of, watched

from .conftest import NOW, before


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_what_is_well_now_is_good(verdict: Verdict) -> None:
    """A verdict that nobody confirmed lately is not known, whatever it was; trouble is never calm."""
    assert tone_of(verdict, late=True) is Tone.UNKNOWN
    assert (tone_of(verdict, late=False) is Tone.GOOD) == (verdict in HEALTHY)
    if verdict in TROUBLE:
        assert tone_of(verdict, late=False) is Tone.BAD


@given(st.text())
def test_a_verdict_of_another_version_is_not_good(verdict: str) -> None:
    """What this version does not know the name of is shown as trouble."""
    if verdict not in set(Verdict):
        assert tone_of(verdict, late=False) is Tone.BAD


def test_watchers_that_must_be_there_are_missed() -> None:
    """One that never looked is late, as is one that is silent for longer than it may be."""
    never = watched([], NOW)
    assert [(w.name, w.seen_at, w.late) for w in never] == [("poll", None, True), ("watchdog", None, True)]
    rows = [{"watcher": name, "seen_at": before(seconds), "detail": ""} for name, seconds in (("poll", 16), ("watchdog", 100), ("agent", 10))]
    assert {w.name: w.late for w in watched(rows, NOW)} == {"poll": True, "watchdog": False, "agent": False}
    assert {w.name: w.late for w in watched(rows, NOW + timedelta(minutes=5))} == {"poll": True, "watchdog": True, "agent": True}


def test_the_page_is_as_bad_as_its_worst_row(sample: Board) -> None:
    """And never good while a watcher is late."""
    from dataclasses import replace

    assert sample.tone is Tone.BAD
    one = {"bronze_binance": sample.streams["bronze_binance"]}
    assert replace(sample, streams=one).tone is Tone.UNKNOWN
    assert replace(sample, streams=one, watchers=sample.watchers[:1]).tone is Tone.GOOD
    doubtful = {"bronze_binance": replace(one["bronze_binance"], certificate=sample.streams["silver_binance"].certificate)}
    assert replace(sample, streams=doubtful, watchers=sample.watchers[:1]).tone is Tone.BAD
    assert replace(sample, streams={}, watchers=sample.watchers[:1]).tone is Tone.UNKNOWN
