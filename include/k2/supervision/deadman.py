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
    ran: float | None = None
    """The same of the one that also acts on what it sees."""
    told: float | None = None
    """When people were last told that none looks; None if they were not, or know that one looks again."""

    def seconds(self, now: float) -> float:
        return now - (self.begun if self.looked is None else self.looked)

    def seconds_without_run(self, now: float) -> float:
        return now - (self.begun if self.ran is None else self.ran)


def is_silent(rules: DeadMan, silence: Silence, now: float) -> bool:
    """Whether nobody looks, or nobody acts. Whoever never looked has longer, because Airflow takes its time to start."""
    limit = rules.first_look_seconds if silence.looked is None else rules.silent_seconds
    runs_limit = max(rules.runs_silent_seconds, rules.first_look_seconds if silence.ran is None else 0)
    return silence.seconds(now) >= limit or silence.seconds_without_run(now) >= runs_limit


def step(rules: DeadMan, silence: Silence, now: float) -> Step:
    """What to tell people now."""
    if not is_silent(rules, silence, now):
        # Both have looked since people were told, or it would still be silent.
        return Step.RESOLVE if silence.told is not None and silence.looked is not None and silence.looked > silence.told else Step.NONE
    if silence.told is None:
        return Step.PAGE
    return Step.REMIND if now - silence.told >= rules.repeat_minutes * 60 else Step.NONE
