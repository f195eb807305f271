"""Outages as bars."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from k2.registry.observed import Outage
from k2.supervision.ledger import STEPS, Entry
from k2.web.board import Board
from k2.web.timeline import LEAST, WIDTH, bars

from .conftest import NOW, before


def test_no_outage_no_bar() -> None:
    """An empty picture is none."""
    assert bars([], NOW) == []


def test_bars_share_one_scale(sample: Board) -> None:
    """The longest is as wide as the picture, the others in proportion."""
    found = bars(sample.account.of("bronze_binance"), NOW)
    assert [bar.label for bar in found] == ["13.0 s", "30.5 s", "12.6 s"]
    assert WIDTH <= found[1].end <= WIDTH + LEAST * len(STEPS)
    assert abs(found[0].end / found[1].end - 13 / 30.5) < 0.01


def test_an_open_outage_grows(sample: Board) -> None:
    """It ends now, in the colour of the step that it waits for."""
    (bar,) = bars(sample.account.of("silver_binance"), NOW)
    assert bar.open and bar.label == "700.0 s"
    assert [part.step for part in bar.parts] == [0, 1] and bar.parts[1].title == "not decided yet, for 690 s"


@given(st.lists(st.tuples(st.floats(0, 1e5), st.none() | st.floats(0, 1e5), st.none() | st.floats(0, 1e5)), max_size=5))
def test_no_bar_leaves_the_picture(rows: list[tuple[float, float | None, float | None]]) -> None:
    """Whatever happened when: parts follow each other, each is seen, and none is wider than the picture."""
    found = [
        Entry(
            Outage(
                "s", "DEAD", "-", 1, before(ago + 1), before(ago), before(back) if back is not None else None, None, 1, before(up) if up is not None else None
            )
        )
        for ago, back, up in rows
    ]
    for bar in bars(found, NOW + timedelta(seconds=1)):
        x = 0.0
        for part in bar.parts:
            assert abs(part.x - x) < 1e-6 and part.width >= LEAST
            x += part.width
        assert abs(bar.end - x) < 1e-6 and x <= WIDTH + LEAST * len(STEPS) + 1e-6
