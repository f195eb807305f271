"""What is observed of a stream, and what is concluded: plain values that probes fill and supervision judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum, unique
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@unique
class ExitCode(IntEnum):
    """How a driver leaves. Anything else is a crash; negative numbers are signals."""

    STOPPED = 0
    """It was asked to stop (SIGTERM)."""
    INCOMPATIBLE = 65
    """Its checkpoint, its state or its source does not fit any more, or lost data: starting again cannot help."""
    CONFIG = 78
    """Its registry entry, a table or an argument is wrong: starting again cannot help."""
    CUT_SHORT = 79
    """It was asked to stop, and left before a batch that it had planned was committed: the next driver replays it."""
    QUERY_FAILED = 70
    """Its query ended by an exception."""
    JVM_DIED = 71
    """The Java process went away under it."""
    INFRASTRUCTURE = 74
    """The machine failed it: memory, disk, a lost executor or worker, a store that timed out."""
    DEPENDENCY = 75
    """Something that it needs did not answer: Kafka or the catalog."""
    FENCED = 86
    """The catalog refused its commit: another driver holds the stream."""


class FailureClass(StrEnum):
    """Why a driver died, as far as it decides what follows."""

    INFRASTRUCTURE = "infrastructure"
    """Killed, out of memory, a JVM or a disk that failed."""
    DEPENDENCY = "dependency"
    """Something that it needs did not answer."""
    QUERY = "query"
    """Its query raised an exception: the second time at the same batch it is poison."""
    INCOMPATIBLE = "incompatible"
    """Checkpoint, state or source do not fit: never started again by itself."""
    FENCED = "fenced"
    """It lost the stream to another driver."""
    CONFIG = "config"
    """A mistake in the registry, a table or an argument: never started again by itself."""


class DriverState(StrEnum):
    RUNNING = "running"
    EXITED = "exited"
    ABSENT = "absent"


@dataclass(frozen=True)
class Reading(Generic[T]):
    """One source's answer: `value` is None exactly when `error` says why it could not be read."""

    at: datetime
    value: T | None = None
    error: str | None = None
    silent: str | None = None
    """The dependency that did not answer, when that is why."""

    @property
    def known(self) -> bool:
        return self.error is None


Records = dict[str, dict[str, list[list[int]]]]
"""Kafka records: {topic: {partition: [[first offset, last offset], ...]}}, both ends included."""


@dataclass(frozen=True)
class Failure:
    """What a driver left behind of the exception that ended it."""

    fingerprint: str = ""
    """The same for the same failure, whatever the numbers, ids and paths in its message; empty when nobody saw it."""
    batch: int | None = None
    """The batch that was planned and not committed."""
    records: Records | None = None
    """What to blame: the records that were found to fail, or all of the batch."""
    narrowed: bool = False
    """Each of the records was seen to fail by itself."""
    dependency: str | None = None
    """kafka or catalog, for the class of that name."""


@dataclass(frozen=True)
class Driver:
    """The launcher's view of the newest driver of a stream."""

    state: DriverState
    fence: int = 0
    pid: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    """None while it runs, or when nobody saw how it ended."""
    exit_message: str = ""
    failure: Failure | None = None
    asked: bool = False
    """The launcher was told to stop or kill it: its end is no death."""
    memory_mb: float | None = None
    how: str = "cold"
    status_url: str | None = None


@dataclass(frozen=True)
class Stopped:
    """How a stop ended. `drained`: the driver finished its batch and left with 0, nothing had to be killed."""

    drained: bool
    exit_code: int | None


@dataclass(frozen=True)
class QueryStatus:
    """A driver's own word, from its /status endpoint."""

    stream: str
    fence: int
    query_id: str | None
    run_id: str | None
    batch_id: int | None
    message: str
    phase: str
    """starting, running, waiting, stopping."""
    waits_for: str | None
    """The dependency it waits for (schema_registry, catalog), or None."""
    last_event_at: datetime | None
    """Last progress or idle event of the query."""
    batch_seconds: float | None
    input_rows: int | None
    longest_pause_seconds: float | None = None
    """The longest that one of its last hundred batches went without a finished task; batches that waited for a dependency are left out."""
    active_tasks: int | None = None
    tasks_at: datetime | None = None
    """When the number of tasks that Spark completed was last seen to rise."""


@dataclass(frozen=True)
class Checkpoint:
    """The tail of a checkpoint's logs. `None` numbers mean that the log is empty."""

    query_id: str | None
    last_offset_batch: int | None
    last_commit_batch: int | None
    last_commit_at: datetime | None
    committed: dict[str, Any] | None
    """Source offset of the last committed batch: {topic: {partition: next offset}} for Kafka,
    {"snapshot_id", "position", ...} for Iceberg; None before the first commit."""
    last_offset_at: datetime | None = None
    """When the last batch was planned."""

    @property
    def in_flight(self) -> bool:
        """Whether a batch is planned and not committed."""
        return self.last_offset_batch is not None and self.last_offset_batch != self.last_commit_batch


@dataclass(frozen=True)
class Head:
    """Where the source stands, in the form of `Checkpoint.committed`, and how far behind the stream is."""

    position: dict[str, Any]
    lag_rows: int | None
    lag_seconds: float | None


@dataclass(frozen=True)
class Death:
    """A launch of a stream that ended by itself or had to be killed because it hung."""

    fence: int
    generation: int
    at: datetime
    kind: FailureClass
    exit_code: int | None = None
    commits: int = 0
    """Batches that this launch committed."""
    failure: Failure = field(default_factory=Failure)


@dataclass(frozen=True)
class Wanted:
    """What people asked for and what was last tried: the suite's own SQL schema."""

    desired: str
    """running or stopped."""
    generation: int
    """Rises with each request; a driver launched for an older one is replaced."""
    fence: int
    launch_generation: int | None = None
    intent_at: datetime | None = None
    launched_at: datetime | None = None
    first_commit_at: datetime | None = None
    first_commit_batch: int | None = None
    ended_at: datetime | None = None
    deaths: int = 0
    """Deaths not yet forgiven."""
    last_death_at: datetime | None = None
    verdict: str | None = None
    """The last one that was recorded, and since when it has stood."""
    verdict_since: datetime | None = None
    known_query_id: str | None = None
    """The identity and the highest committed batch that the stream's checkpoint was ever seen with."""
    known_batch: int | None = None
    held_for: str | None = None
    """Why it is not started though it is wanted, until a person adopts it."""
    adopted_generation: int | None = None
    """The last generation that a person adopted the stream with, as it stood then."""
    rebuild_generation: int | None = None
    """The last generation that asks for a checkpoint made again from the stream's tables."""
    launch_detected_at: datetime | None = None
    """When the trouble was detected that the last launch answers; None of one that was asked for."""
    lately: tuple[Death, ...] = ()
    """Its last deaths, newest first."""
    begins_after: int | None = None
    """The last batch that its checkpoint had committed when the last launch was recorded."""
    answered: Mapping[str, datetime] = field(default_factory=dict)
    """Per dependency that had been away, when it last answered again."""

    @property
    def rebuilding(self) -> bool:
        """Whether the next start has to make the checkpoint again: nothing was launched for the generation that asks for it."""
        return self.rebuild_generation == self.generation and self.launch_generation != self.generation


@dataclass(frozen=True)
class Observation:
    """Everything known of one stream at one moment, each part with its own age and its own failure."""

    stream: str
    at: datetime
    wanted: Reading[Wanted]
    driver: Reading[Driver]
    status: Reading[QueryStatus]
    checkpoint: Reading[Checkpoint]
    head: Reading[Head]
    others: tuple[Driver, ...] = ()
    """Older drivers of the stream that still run."""
    registry: Reading[bool] | None = None
    """Whether the schema registry answers the watchdog; None when it was not asked."""


class Verdict(StrEnum):
    STOPPED = "STOPPED"
    """Nobody wants it to run and it does not."""
    STARTING = "STARTING"
    """Launched, no commit of its own yet."""
    IDLE = "IDLE"
    """Everything its source holds is committed."""
    PROGRESSING = "PROGRESSING"
    """Behind its source, and committing."""
    WAITING_DEPENDENCY = "WAITING_DEPENDENCY"
    """Its driver waits for a dependency that the watchdog cannot reach either: hold."""
    HEAD_MISMATCH = "HEAD_MISMATCH"
    """Its query is awake and finds nothing to read, yet its source stands further: nothing to restart, somebody should look."""
    SUSPECT_DRIVER = "SUSPECT_DRIVER"
    """Its driver runs and gives no sign of life; restarted when that lasts."""
    HUNG_SOURCE = "HUNG_SOURCE"
    """Behind, no batch planned, and its query has stopped asking."""
    HUNG_PROCESSING = "HUNG_PROCESSING"
    """A batch is planned, and neither a commit nor a finished task comes."""
    HUNG_START = "HUNG_START"
    """Launched long ago, and it neither commits nor finishes a task."""
    QUERY_DEAD = "QUERY_DEAD"
    """Its driver lives and its query does not."""
    REWIND = "REWIND"
    """Its checkpoint is not the one that it was, or stands before what was committed: stop, and never start by itself."""
    POISONED = "POISONED"
    """The same batch failed twice in the same way: held until a person has decided on its records."""
    INCOMPATIBLE = "INCOMPATIBLE"
    """Its checkpoint, state or source does not fit: held until a person has decided."""
    CRASH_LOOP = "CRASH_LOOP"
    """It died too often without getting on: held, and tried again now and then."""
    SPLIT_BRAIN = "SPLIT_BRAIN"
    """Two of its drivers live: the one with the lower fence is killed."""
    DEAD = "DEAD"
    """Wanted, and its driver is gone."""
    STOPPING = "STOPPING"
    """It runs though nobody wants it to, or must give way to a newer generation."""
    UNKNOWN = "UNKNOWN"
    """Something that must be known could not be read: hold, and never restart."""


class Action(StrEnum):
    NONE = "none"
    START = "start"
    """Fence, launch; kills what is left of the old driver."""
    STOP = "stop"
    """Drain, then kill at the deadline."""
    REPLACE = "replace"
    """Drain, then start."""
    END_OLDER = "end_older"
    """Kill the drivers with lower fences."""
    WAIT = "wait"
    """A start is due, but not before `not_before`."""


@dataclass(frozen=True)
class Decision:
    """A verdict, what follows from it, and the readings that led to it in one sentence."""

    stream: str
    verdict: Verdict
    action: Action
    because: str
    not_before: datetime | None = None
    """Of a restart: when it is due, or since when it has been."""
    detected_at: datetime | None = None
    """When the death was first seen."""
    fence: int = 0
    """The fence and the generation that the decision was made for: once either has changed, it must be made again."""
    generation: int = 0
    dependency: str | None = None
    """What does not answer, of a stream that is held for it."""


@dataclass(frozen=True)
class Outage:
    """A stretch of time in which a stream did not do its work: one row of k2.outages, however many starts it took."""

    stream: str
    verdict: str
    """The first one that was given of it."""
    because: str
    fence: int
    """Of the driver that was in trouble; the starts that answer it have higher ones."""
    good_at: datetime
    """The last moment at which all was well: a commit, or later than that a look that saw it idle."""
    detected_at: datetime
    recovered_at: datetime | None = None
    """It committed again, or had nothing to commit."""
    recovered_by: str | None = None
    """commit or idle."""
    recovered_fence: int | None = None
    caught_up_at: datetime | None = None
    """Nothing was left that is older than a trigger and a batch take."""
    over_at: datetime | None = None
    """From then on it is followed no more."""
    outcome: str | None = None
    """caught_up; interrupted: in trouble again before it had caught up; stopped: nobody wants it to run any more."""
    id: int | None = None


@dataclass(frozen=True)
class Unmended:
    """An outage that has not ended, and how the stream was judged last."""

    stream: str
    detected_at: datetime
    verdict: str
    because: str
