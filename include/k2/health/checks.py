"""Readings against thresholds. Pure: each judge takes numbers and returns one result with its advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from k2.registry.observed import Verdict
from k2.registry.platform import Threshold


class Status(StrEnum):
    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"
    UNKNOWN = "unknown"
    """It could not be read. Never taken for green."""


WORST_FIRST = (Status.RED, Status.UNKNOWN, Status.YELLOW, Status.GREEN)


class Check(StrEnum):
    STREAM = "stream"
    MEMORY = "memory"
    LAG_ROWS = "lag_rows"
    LAG_SECONDS = "lag_seconds"
    DLQ_RATE = "dlq_rate"
    CHECKPOINT_SIZE = "checkpoint_size"
    BATCH_DURATION = "batch_duration"
    FRESHNESS = "freshness"
    DISK = "disk"


ADVICE = {
    Check.STREAM: "Open streams_watch: its last run says what it saw and did. A stream that is held is started with streams_control.",
    Check.MEMORY: "Compare with the last days. If it keeps rising, restart it (a stream: streams_control); if it is steady, raise its budget in platform.yaml.",
    Check.LAG_ROWS: (
        "After a restart or a spike, watch it fall. Batches at max_rows_per_trigger: raise that. Batches longer than the trigger: see batch_duration."
    ),
    Check.LAG_SECONDS: "As for lag_rows. Many seconds with few rows mean that the stream does not commit: see its verdict.",
    Check.DLQ_RATE: "Group the DLQ table by error_reason. One reason after a schema change: fix the decoder and replay. Many reasons: look at raw messages.",
    Check.CHECKPOINT_SIZE: "Read the last checkpoints_prune report: leftovers or retired queries? Never delete inside a checkpoint by hand.",
    Check.BATCH_DURATION: "Above 100 % the stream falls behind: lengthen the trigger, or give the driver more cores. A larger batch makes it worse.",
    Check.FRESHNESS: "No new rows reach the table. If the stream has no lag, its source is silent: read the log of the exchange's feed handler.",
    Check.DISK: "Read the last iceberg_maintenance report for what could go, and clear old logs. At 100 % every stream stops.",
}

UNKNOWN_ADVICE = "Find out why it could not be read: the evidence names the source. Until it can be read again, nobody knows whether it is fine."

UNITS = {
    Check.STREAM: "",
    Check.MEMORY: "% of budget",
    Check.LAG_ROWS: "rows",
    Check.LAG_SECONDS: "s",
    Check.DLQ_RATE: "%",
    Check.CHECKPOINT_SIZE: "MiB",
    Check.BATCH_DURATION: "% of trigger",
    Check.FRESHNESS: "s",
    Check.DISK: "%",
}


@dataclass(frozen=True)
class CheckResult:
    """One check of one subject. `value` is None exactly when the status is unknown or the check has no number (stream)."""

    check: Check
    subject: str
    status: Status
    value: float | None
    yellow: float | None
    red: float | None
    evidence: str
    """The readings behind the value, or why there are none."""
    muted: str | None = None
    """Why this result opens no incident, as while a stream catches up after its start. What it shows is true all the same."""

    @property
    def unit(self) -> str:
        return UNITS[self.check]

    @property
    def advice(self) -> str:
        if self.status is Status.UNKNOWN:
            return UNKNOWN_ADVICE
        return "" if self.status is Status.GREEN else ADVICE[self.check]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"unit": self.unit, "advice": self.advice}


def grade(value: float, threshold: Threshold) -> Status:
    """Green below yellow, yellow from it on, red above red. A value that is no number is unknown."""
    if value != value:
        return Status.UNKNOWN
    if value > threshold.red:
        return Status.RED
    return Status.YELLOW if value >= threshold.yellow else Status.GREEN


def measured(check: Check, subject: str, value: float, threshold: Threshold, evidence: str) -> CheckResult:
    status = grade(value, threshold)
    return CheckResult(check, subject, status, None if status is Status.UNKNOWN else round(value, 3), threshold.yellow, threshold.red, evidence)


def unknown(check: Check, subject: str, why: str, threshold: Threshold | None = None) -> CheckResult:
    limits = (threshold.yellow, threshold.red) if threshold else (None, None)
    return CheckResult(check, subject, Status.UNKNOWN, None, *limits, why)


def share(check: Check, subject: str, used: float, budget: float, threshold: Threshold, unit: str) -> CheckResult:
    """`used` in per cent of `budget`, both in `unit`."""
    return measured(check, subject, 100 * used / budget, threshold, f"{used:,.0f} of {budget:,.0f} {unit}")


def dlq_rate(exchange: str, silver: int, dlq: int, threshold: Threshold, window: str) -> CheckResult:
    """Dead-lettered rows as a share of all rows of one exchange in one window: dlq / (silver + dlq). Without any row there is no rate."""
    if not silver + dlq:
        return unknown(Check.DLQ_RATE, exchange, f"no row reached Silver or the DLQ in {window}", threshold)
    return measured(Check.DLQ_RATE, exchange, 100 * dlq / (silver + dlq), threshold, f"{dlq:,} of {silver + dlq:,} rows in {window}")


STREAM_STATUS = {
    Verdict.IDLE: Status.GREEN,
    Verdict.PROGRESSING: Status.GREEN,
    Verdict.STOPPED: Status.YELLOW,
    Verdict.STARTING: Status.YELLOW,
    Verdict.STOPPING: Status.YELLOW,
    Verdict.UNKNOWN: Status.UNKNOWN,
    Verdict.WAITING_DEPENDENCY: Status.YELLOW,
    Verdict.HEAD_MISMATCH: Status.YELLOW,
}
"""Any other verdict is red. STOPPED was asked for, but a report should not let it be forgotten."""


def stream(name: str, verdict: Verdict, because: str) -> CheckResult:
    return CheckResult(Check.STREAM, name, STREAM_STATUS.get(verdict, Status.RED), None, None, None, f"{verdict}: {because}")


def worst(results: Sequence[CheckResult]) -> Status:
    """The status of the whole: that of the worst check; unknown when nothing was checked."""
    found = {r.status for r in results}
    return next((s for s in WORST_FIRST if s in found), Status.UNKNOWN)


def counts(results: Sequence[CheckResult]) -> Mapping[str, int]:
    return {str(s): sum(r.status is s for r in results) for s in WORST_FIRST}
