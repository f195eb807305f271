"""Which faults happen, to what and in which order: a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_PAUSE_SECONDS = 8.0
PAIRS = 0.4
"""How many of the rounds that could have two faults at once have them."""
SPACED = 2
"""A stream is left alone for so many rounds after it was hurt."""


class Target(StrEnum):
    """What a kind of fault hurts."""

    STREAM = "stream"
    SILVER = "silver stream"
    PROXIED = "stream behind the proxy"
    FEED = "feed"
    PART = "part of the platform"


class Kind(StrEnum):
    DRIVER_KILL = "driver killed"
    DRIVER_TERM = "driver asked to leave by a signal"
    DRIVER_OOM = "driver out of memory"
    DRIVER_FREEZE = "driver frozen"
    DRIVER_ZOMBIE = "driver frozen, replaced, thawed"
    DOUBLE_START = "second driver by hand"
    WRITE_BLOCKED = "commit blocked"
    BROKER_HOLE = "broker silent for one driver"
    BROKER_RESET = "broker resets one driver"
    BROKER_SLOW = "broker slow for one driver"
    BROKER_STOP = "broker stopped"
    BROKER_FREEZE = "broker frozen"
    REGISTRY_KILL = "schema registry killed"
    REGISTRY_FREEZE = "schema registry frozen"
    DATABASE_RESTART = "catalog database restarted"
    TRIGGERER_KILL = "triggerer killed"
    SCHEDULER_KILL = "scheduler killed"
    TASK_KILL = "watch task killed at work"
    WATCHDOG_PAUSE = "watchdog paused"
    TWO_WATCHDOGS = "two watchdogs at once"
    AGENT_KILL = "host agent killed"
    AGENT_FREEZE = "host agent frozen"
    AGENT_TERM = "host agent asked to leave by a signal"
    AGENT_OOM = "host agent out of memory"
    SPARE_KILL = "spare killed"
    SPARE_TERM = "spare asked to leave by a signal"
    SPARE_OOM = "spare out of memory"
    SPARE_FREEZE = "spare frozen, driver killed"
    FEED_KILL = "feed killed"
    FEED_FREEZE = "feed frozen"
    FEED_TERM = "feed asked to leave by a signal"
    FEED_OOM = "feed out of memory"
    DISK_FULL = "disk of the checkpoints full"


@dataclass(frozen=True)
class Rule:
    target: Target
    limit_seconds: float
    """From the end of the fault until every stream is back."""
    weight: int = 2
    """How often it is chosen, against the others."""
    lasts_seconds: float = 0.0
    """How long it is held; 0 for one that is done at once."""
    until_found: bool = False
    """It is held until the watchdog has found it, and for `lasts_seconds` at most."""
    waits: bool = False
    """It waits for its moment (a batch, a warm spare) and is done at once then: seconds count from there."""
    new_driver: bool = False
    """The stream is not back before it has another driver."""
    pool: bool = False
    """The platform is not back before its spares are warm again."""


DEATH, HANG, PART = 90.0, 120.0, 90.0

RULES: Mapping[Kind, Rule] = {
    Kind.DRIVER_KILL: Rule(Target.STREAM, DEATH, weight=4, new_driver=True),
    Kind.DRIVER_TERM: Rule(Target.STREAM, DEATH, new_driver=True),
    Kind.DRIVER_OOM: Rule(Target.STREAM, DEATH, new_driver=True),
    Kind.DRIVER_FREEZE: Rule(Target.STREAM, HANG, lasts_seconds=180, until_found=True, waits=True, new_driver=True),
    Kind.DRIVER_ZOMBIE: Rule(Target.STREAM, HANG, new_driver=True),
    Kind.DOUBLE_START: Rule(Target.STREAM, HANG),
    Kind.WRITE_BLOCKED: Rule(Target.SILVER, HANG, lasts_seconds=180, until_found=True, waits=True, new_driver=True),
    Kind.BROKER_HOLE: Rule(Target.PROXIED, HANG, lasts_seconds=180, until_found=True, waits=True, new_driver=True),
    Kind.BROKER_RESET: Rule(Target.PROXIED, HANG, lasts_seconds=10, waits=True),
    Kind.BROKER_SLOW: Rule(Target.PROXIED, HANG, lasts_seconds=15, weight=1, waits=True),
    Kind.BROKER_STOP: Rule(Target.PART, HANG),
    Kind.BROKER_FREEZE: Rule(Target.PART, HANG, lasts_seconds=15),
    Kind.REGISTRY_KILL: Rule(Target.PART, PART, weight=1),
    Kind.REGISTRY_FREEZE: Rule(Target.PART, PART, lasts_seconds=15, weight=1),
    Kind.DATABASE_RESTART: Rule(Target.PART, HANG),
    Kind.TRIGGERER_KILL: Rule(Target.PART, PART),
    Kind.SCHEDULER_KILL: Rule(Target.PART, HANG),
    Kind.TASK_KILL: Rule(Target.STREAM, 180.0, new_driver=True),
    Kind.WATCHDOG_PAUSE: Rule(Target.STREAM, HANG, lasts_seconds=15, new_driver=True),
    Kind.TWO_WATCHDOGS: Rule(Target.STREAM, DEATH, new_driver=True),
    Kind.AGENT_KILL: Rule(Target.PART, PART),
    Kind.AGENT_FREEZE: Rule(Target.PART, PART, lasts_seconds=10),
    Kind.AGENT_TERM: Rule(Target.PART, PART, weight=1),
    Kind.AGENT_OOM: Rule(Target.PART, PART, weight=1),
    Kind.SPARE_KILL: Rule(Target.PART, PART, weight=1, waits=True, pool=True),
    Kind.SPARE_TERM: Rule(Target.PART, PART, weight=1, waits=True, pool=True),
    Kind.SPARE_OOM: Rule(Target.PART, PART, weight=1, waits=True, pool=True),
    Kind.SPARE_FREEZE: Rule(Target.STREAM, DEATH, weight=1, waits=True, new_driver=True),
    Kind.FEED_KILL: Rule(Target.FEED, PART),
    Kind.FEED_FREEZE: Rule(Target.FEED, PART, lasts_seconds=10, weight=1),
    Kind.FEED_TERM: Rule(Target.FEED, PART, weight=1),
    Kind.FEED_OOM: Rule(Target.FEED, PART, weight=1),
    Kind.DISK_FULL: Rule(Target.PART, 150.0, lasts_seconds=8, weight=1),
}

ALONGSIDE = (Kind.DRIVER_KILL, Kind.AGENT_KILL, Kind.TRIGGERER_KILL, Kind.SCHEDULER_KILL, Kind.DATABASE_RESTART, Kind.BROKER_STOP, Kind.SPARE_KILL)
"""What may happen at the same time as another fault."""
UNDONE_BY = {Kind.WRITE_BLOCKED: Kind.DATABASE_RESTART}
"""What would heal another fault at once: a restart of the database ends the transaction that blocks the commit."""
FIRST_OF_TWO = (Kind.DRIVER_KILL, Kind.DRIVER_TERM, Kind.DRIVER_OOM, Kind.DRIVER_FREEZE, Kind.WRITE_BLOCKED, Kind.FEED_KILL)


@dataclass(frozen=True)
class Fault:
    kind: Kind
    target: str
    """A stream, an exchange, or "platform"."""

    @property
    def rule(self) -> Rule:
        return RULES[self.kind]


@dataclass(frozen=True)
class Round:
    """Faults at once, after a pause on a platform that is well."""

    pause_seconds: float
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Subjects:
    """What there is to hurt."""

    streams: Sequence[str]
    silver: Sequence[str]
    proxied: Sequence[str]
    exchanges: Sequence[str]

    def of(self, target: Target) -> Sequence[str]:
        return {
            Target.STREAM: self.streams,
            Target.SILVER: self.silver,
            Target.PROXIED: self.proxied,
            Target.FEED: self.exchanges,
            Target.PART: ("platform",),
        }[target]


def plan(seed: int, faults: int, subjects: Subjects, without: frozenset[Kind] = frozenset()) -> list[Round]:
    """So many faults in rounds of one or two. The same arguments give the same plan, and a longer plan begins with a shorter one's faults.

    Every kind comes once before any comes again by its weight, in an order of the seed.
    """
    chance = random.Random(f"k2 chaos {seed}")
    kinds = [kind for kind in RULES if kind not in without]
    first = chance.sample(kinds, len(kinds))
    rounds: list[Round] = []
    left = faults
    while left > 0:
        pause = round(chance.uniform(0.5, MOST_PAUSE_SECONDS), 1)
        kind = first.pop() if first else chance.choices(kinds, [RULES[k].weight for k in kinds])[0]
        resting = {fault.target for done in rounds[-SPACED:] for fault in done.faults}
        chosen = [Fault(kind, _target(chance, subjects.of(RULES[kind].target), resting))]
        other = chance.choice([k for k in ALONGSIDE if k not in (kind, UNDONE_BY.get(kind)) and k not in without])
        target = _target(chance, subjects.of(RULES[other].target), resting | {chosen[0].target})
        if kind in FIRST_OF_TWO and chance.random() < PAIRS and target != chosen[0].target:
            chosen.append(Fault(other, target))
        chosen = chosen[:left]
        rounds.append(Round(pause, tuple(chosen)))
        left -= len(chosen)
    return rounds


def _target(chance: random.Random, among: Sequence[str], resting: set[str]) -> str:
    rested = [name for name in among if name not in resting]
    return chance.choice(rested or list(among))
