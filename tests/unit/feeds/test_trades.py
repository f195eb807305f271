"""One trade, whatever names and spellings it came under."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.feeds.trades import micros, plain, to_kraken_v1, to_kraken_v2


@pytest.mark.parametrize(
    ("v2", "v1"), [("BTC/USD", "XBT/USD"), ("ALGO/BTC", "ALGO/XBT"), ("DOGE/BTC", "XDG/XBT"), ("ETH/USD", "ETH/USD"), ("XBTC/USD", "XBTC/USD")]
)
def test_kraken_names(v2: str, v1: str) -> None:
    """Whole assets are renamed, in either place of the pair, and never a part of a name."""
    assert (to_kraken_v1(v2), to_kraken_v2(v1)) == (v1, v2)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**12, places=8))
def test_one_spelling_per_value(value: Decimal) -> None:
    """However a number is written, it has one plain text, which has the same value and no exponent."""
    spellings = {plain(text) for text in (f"{value:f}", f"{value:E}", f"{value:f}000")}
    assert len(spellings) == 1
    (text,) = spellings
    assert Decimal(text) == value
    assert "E" not in text


def test_micros_are_exact() -> None:
    """Seconds as text become µs without passing through a float."""
    assert micros("1617666461.465618") == 1617666461465618
    assert micros("9007199254740993.000001") == 9007199254740993000001
