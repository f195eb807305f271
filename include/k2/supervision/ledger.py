"""The ledger: how each outage went, step by step, from what was written down while it happened. Pure.

last good -> detected -> decided -> fenced -> launched -> recovered -> caught up. Restarts that died before they committed
belong to the outage that they answered, so that its launch is the first one and its recovery that of the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from k2.percentiles import percentile
from k2.registry.observed import Outage

STEPS = ("detected", "decided", "fenced", "launched", "recovered", "caught up")
"""The moments of an outage after the last good one, in their order."""


@dataclass(frozen=True)
class Entry:
    """One outage and the starts that answered it, in the order of their fences."""

    outage: Outage
    launches: tuple[Mapping[str, Any], ...] = ()

    @property
    def fences(self) -> tuple[int, ...]:
        return tuple(launch["fence"] for launch in self.launches)

    @property
    def how(self) -> str | None:
        """How the start came about that recovered the stream, or the last one so far: spare or cold; None without any."""
        return self.launches[-1]["how"] if self.launches else None

    @property
    def moments(self) -> dict[str, datetime | None]:
        """When each step was reached; None for one that was not, or not needed. None is before one of the steps before it."""
        first = self.launches[0] if self.launches else {}
        raw = (
            self.outage.detected_at,
            first.get("decided_at"),
            first.get("intent_at"),
            first.get("launched_at"),
            self.outage.recovered_at,
            self.outage.caught_up_at,
        )
        moments: dict[str, datetime | None] = {}
        latest = self.outage.good_at
        for name, moment in zip(STEPS, raw, strict=True):
            # The clocks of the database, of the watchdog and of a checkpoint's files may differ a little.
            latest = max(latest, moment) if moment is not None else latest
            moments[name] = latest if moment is not None else None
        return moments

    @property
    def steps(self) -> dict[str, float | None]:
        """Seconds that each step took, from the step before it that was reached; None for one that was not. Never negative."""
        steps: dict[str, float | None] = {}
        before = self.outage.good_at
        for name, moment in self.moments.items():
            steps[name] = None if moment is None else (moment - before).total_seconds()
            before = moment or before
        return steps

    @property
    def to_recovery(self) -> float | None:
        """Seconds from the detection to the recovery; None while it has not recovered."""
        moments = self.moments
        detected, recovered = moments["detected"], moments["recovered"]
        return (recovered - detected).total_seconds() if detected is not None and recovered is not None else None

    @property
    def down(self) -> float | None:
        """Seconds from the last good moment to the recovery; None while it has not recovered."""
        recovered = self.moments["recovered"]
        return (recovered - self.outage.good_at).total_seconds() if recovered is not None else None

    @property
    def state(self) -> str:
        """open; catching up; or how it ended: caught up, interrupted, stopped."""
        if self.outage.outcome is not None:
            return self.outage.outcome.replace("_", " ")
        return "open" if self.outage.recovered_at is None else "catching up"

    def as_dict(self) -> dict[str, Any]:
        """Plain values; moments in ISO 8601, durations in seconds."""
        outage = self.outage
        return {
            "stream": outage.stream,
            "verdict": outage.verdict,
            "because": outage.because,
            "state": self.state,
            "last_good_at": outage.good_at.isoformat(),
            "moments": {name: moment.isoformat() if moment else None for name, moment in self.moments.items()},
            "seconds": self.steps,
            "detection_to_recovery_seconds": self.to_recovery,
            "last_good_to_recovery_seconds": self.down,
            "recovered_by": outage.recovered_by,
            "how": self.how,
            "fences": list(self.fences),
        }


@dataclass(frozen=True)
class Summary:
    """What the entries of one stream come to. Seconds; None where nothing has been measured yet."""

    stream: str
    outages: int
    open: int
    to_recovery_p50: float | None
    to_recovery_p95: float | None
    down_p50: float | None
    down_p95: float | None
    between: float | None
    """Time observed, less the time of the outages, for each outage."""
    verdicts: dict[str, int] = field(default_factory=dict)
    """How many outages began with each verdict."""


def entries(outages: Iterable[Outage], launches: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Each outage with the starts that answered it, in the order of the outages."""
    starts: dict[str, list[Mapping[str, Any]]] = {}
    for launch in sorted(launches, key=lambda row: row["fence"]):
        starts.setdefault(launch["stream"], []).append(launch)
    ordered = sorted(outages, key=lambda outage: (outage.detected_at, outage.id or 0))
    next_fence: dict[int, float] = {}
    latest: dict[str, float] = {}
    for place in reversed(range(len(ordered))):
        outage = ordered[place]
        next_fence[place] = latest.get(outage.stream, math.inf)
        latest[outage.stream] = outage.fence
    found = []
    for place, outage in enumerate(ordered):
        last = outage.recovered_fence if outage.recovered_fence is not None else next_fence[place]
        answered = [row for row in starts.get(outage.stream, ()) if outage.fence < row["fence"] <= last]
        if outage.over_at is not None:
            answered = [row for row in answered if row["intent_at"] <= outage.over_at]
        found.append(Entry(outage, tuple(answered)))
    return found


def summarize(stream: str, found: Sequence[Entry], observed: timedelta) -> Summary:
    """What the entries of a stream come to over the time that was observed."""
    to_recovery = [e.to_recovery for e in found if e.to_recovery is not None]
    down = [e.down for e in found if e.down is not None]
    verdicts: dict[str, int] = {}
    for entry in found:
        verdicts[entry.outage.verdict] = verdicts.get(entry.outage.verdict, 0) + 1
    return Summary(
        stream=stream,
        outages=len(found),
        open=sum(e.state == "open" for e in found),
        to_recovery_p50=percentile(to_recovery, 50) if to_recovery else None,
        to_recovery_p95=percentile(to_recovery, 95) if to_recovery else None,
        down_p50=percentile(down, 50) if down else None,
        down_p95=percentile(down, 95) if down else None,
        between=max(0.0, observed.total_seconds() - sum(down)) / len(found) if found else None,
        verdicts=verdicts,
    )
