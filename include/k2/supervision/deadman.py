"""When whoever owns the drivers must say that nobody watches the streams. Pure: seconds of a monotonic clock come in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from k2.registry.platform import DeadMan


class Step(StrEnum):
    NONE = "none"
    PAGE = "page"
    REMIND = "remind"
    RESOLVE = "resolve"


@dataclass(frozen=True)
class Silence:
    """What is known of the watchers. All moments are seconds of one monotonic clock."""

    begun: float
    """Since when they are meant to look."""
    looked: float | None = None
    """When one of them was last seen to have looked; None if never since `begun`."""
    told: float | None = None
    """When people were last told that none looks; None if they were not, or know that one looks again."""

    def seconds(self, now: float) -> float:
        return now - (self.begun if self.looked is None else self.looked)


def step(rules: DeadMan, silence: Silence, now: float) -> Step:
    """What to tell people now. Whoever never looked has longer, because Airflow takes its time to start."""
    limit = rules.first_look_seconds if silence.looked is None else rules.silent_seconds
    if silence.seconds(now) < limit:
        # Somebody has looked since people were told, or it would still be silent.
        return Step.RESOLVE if silence.told is not None and silence.looked is not None and silence.looked > silence.told else Step.NONE
    if silence.told is None:
        return Step.PAGE
    return Step.REMIND if now - silence.told >= rules.repeat_minutes * 60 else Step.NONE
