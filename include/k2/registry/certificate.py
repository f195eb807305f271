"""A certificate of a stream: what was checked of its history, and with which result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Result(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Color(StrEnum):
    GREEN = "green"
    RED = "red"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Check:
    name: str
    result: Result
    evidence: str
    batch: int | None = None
    """The first batch that is wrong, or that cannot be known."""


@dataclass(frozen=True)
class Certificate:
    """The checks of the batches `first` to `last`, with the fences that committed them. `rows` were added to the stream's first table."""

    stream: str
    query: str | None
    fence: int
    first: int | None
    last: int | None
    batches: int
    rows: int
    fences: tuple[int, ...]
    checks: tuple[Check, ...]

    @property
    def color(self) -> Color:
        results = {check.result for check in self.checks}
        if Result.FAILED in results:
            return Color.RED
        return Color.UNKNOWN if Result.UNKNOWN in results or not self.batches else Color.GREEN

    def bad(self) -> list[Check]:
        """What is not passed, the failed ones first."""
        return sorted((c for c in self.checks if c.result is not Result.PASSED), key=lambda c: c.result is not Result.FAILED)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "fences": list(self.fences), "checks": [asdict(c) for c in self.checks], "color": str(self.color)}

    def sentence(self) -> str:
        """One line for a person."""
        covers = f"batches {self.first}-{self.last}" if self.batches else "no batch"
        if self.color is Color.GREEN:
            return f"{covers}, {self.rows:,} rows: nothing lost, nothing doubled"
        return f"{covers}: " + "; ".join(f"{c.name}: {c.evidence}" for c in self.bad())


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical form of a certificate's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()
