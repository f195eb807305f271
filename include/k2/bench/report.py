"""The one shape of every benchmark's result."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured thing. `ratio` is ours / rival: smaller is better. `samples` are the single measurements behind `value`."""

    what: str
    value: float
    unit: str
    rival: str | None
    rival_value: float | None
    ratio: float | None
    samples: tuple[float, ...]

    @classmethod
    def of(cls, what: str, samples: Sequence[float], unit: str, *, rival: str | None = None, rival_samples: Sequence[float] = ()) -> Figure:
        """The median of the samples, against the median of the rival's. Raises ValueError without samples."""
        if not samples:
            raise ValueError(f"figure {what!r} has no samples")
        value = median(samples)
        rival_value = median(rival_samples) if rival_samples else None
        ratio = round(value / rival_value, 3) if rival_value else None
        return cls(what, round(value, 3), unit, rival, None if rival_value is None else round(rival_value, 3), ratio, tuple(round(s, 3) for s in samples))


@dataclass(frozen=True)
class Report:
    """One benchmark on one machine."""

    name: str
    machine: str
    figures: tuple[Figure, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    def table(self) -> str:
        """The figures as aligned text."""
        header = ("what", "value", "unit", "rival", "rival value", "ratio", "samples")
        rows = [(f.what, _number(f.value), f.unit, f.rival or "–", _number(f.rival_value), _number(f.ratio), str(len(f.samples))) for f in self.figures]
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
        return "\n".join([f"{self.name} on {self.machine}", "", *lines])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def machine() -> str:
    """This machine in a line: processor, cores that may be used, memory, system, Python."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, Python {platform.python_version()}"
