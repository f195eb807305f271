"""Runs the Silver job with one change: its decoder makes the query fail at trades of one pair, as a rule with a mistake does.

poisoned.py --stream NAME --fence N
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "spark_jobs"))

from pyspark.sql import functions as f  # noqa: E402

import silver  # noqa: E402
from driver import main  # noqa: E402

POISON = "POISON/USD"
load_decoder = silver.load_decoder


class Mistaken:
    """A decoder that divides by zero."""

    def __init__(self, name: str) -> None:
        self._right = load_decoder(name)

    def decode(self, record: Any) -> Any:
        trade = self._right.decode(record)
        divisor = f.when(record["pair"] == POISON, f.lit(0)).otherwise(f.lit(1))
        return replace(trade, source_sequence=(trade.source_sequence / divisor).cast("bigint"))


silver.load_decoder = Mistaken  # type: ignore[assignment]
main("silver", silver.start)
