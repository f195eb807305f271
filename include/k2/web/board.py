"""What the pages show, as values: read in one short transaction, judged by its age, and never better than it is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from k2 import ledger
from k2.launchers.spares import read_spares
from k2.registry.observed import Head, Observation, Reading, Verdict
from k2.registry.runtime import Runtime
from k2.registry.windows import Window
from k2.state import audit, certificates, database, incidents, verdicts, watchers, windows
from k2.state.database import Connection
from k2.supervision import explain
from k2.supervision.ledger import Entry, Summary
from k2.supervision.verdicts import HEALTHY, OUTDATED

ANSWER_MS = 2000
"""A page would rather say that it cannot know than keep a person waiting."""
WATCHERS = {"poll": timedelta(seconds=15), "watchdog": OUTDATED}
"""The watchers that there must be, and how long each may be silent."""
PLANNED = frozenset({Verdict.STOPPED, Verdict.STOPPING, Verdict.STARTING})
SHOWN = 20
"""Launches, outages and audit entries on a stream's page."""


class Tone(StrEnum):
    """How a person should feel about a row; the worst of them is the page's."""

    BAD = "bad"
    UNKNOWN = "unknown"
    CALM = "calm"
    GOOD = "good"


@dataclass(frozen=True)
class StreamRow:
    name: str
    tone: Tone
    verdict: str
    because: str
    since: datetime | None
    """Since when the verdict has stood; None of a stream that was never judged."""
    seen_at: datetime | None
    observation: Observation | None
    budget_mb: int
    """What its driver may use of memory."""
    entries: list[Entry]
    """Its outages within the window of the error budget, oldest first."""
    summary: Summary
    budget: ledger.Budget
    certificate: dict[str, Any] | None = None
    """Its newest, as the row of k2.certificates; None when none was made yet."""
    late: bool = False
    """Nobody has confirmed the verdict lately: what was read then is not known of now."""

    @property
    def head(self) -> Reading[Head] | None:
        return self.observation.head if self.observation else None

    @property
    def doubts(self) -> list[str]:
        """What the certificate could not show, in words."""
        checks = self.certificate["checks"] if self.certificate else []
        return [f"{check['name']}: {check['evidence']}" for check in checks if check["result"] != "passed"]

    @property
    def readings(self) -> list[explain.Row]:
        """As they were when the verdict was given."""
        return explain.rows(self.observation, self.seen_at) if self.observation is not None and self.seen_at is not None else []

    def as_dict(self) -> dict[str, Any]:
        seen = self.observation
        checkpoint, head, driver = (getattr(seen, part).value if seen else None for part in ("checkpoint", "head", "driver"))
        return {
            "stream": self.name,
            "tone": str(self.tone),
            "late": self.late,
            "verdict": self.verdict,
            "because": self.because,
            "since": _iso(self.since),
            "seen_at": _iso(self.seen_at),
            "lag_rows": head.lag_rows if head else None,
            "lag_seconds": head.lag_seconds if head else None,
            "last_commit_at": _iso(checkpoint.last_commit_at) if checkpoint else None,
            "last_commit_batch": checkpoint.last_commit_batch if checkpoint else None,
            "driver": {"state": str(driver.state), "fence": driver.fence, "how": driver.how, "memory_mb": driver.memory_mb} if driver else None,
            "memory_budget_mb": self.budget_mb,
            "readings": [{"source": r.source, "age_seconds": r.age_seconds, "value": dict(r.fields), "error": r.error} for r in self.readings],
            "recovery_seconds": {"p50": self.summary.to_recovery_p50, "p95": self.summary.to_recovery_p95},
            "error_budget": self.budget.as_dict(),
            "certificate": {"color": self.certificate["color"], "at": _iso(self.certificate["at"]), "doubts": self.doubts} if self.certificate else None,
            "last_outage": self.entries[-1].as_dict() if self.entries else None,
        }


@dataclass(frozen=True)
class Watcher:
    name: str
    seen_at: datetime | None
    """None when it never looked."""
    late: bool
    detail: str
    """What it could not read."""


@dataclass(frozen=True)
class Board:
    at: datetime
    streams: dict[str, StreamRow]
    watchers: list[Watcher]
    incidents: list[dict[str, Any]]
    spares: dict[str, bool]
    """Whether each living spare is warm."""
    spares_wanted: int
    account: ledger.Account
    windows: list[Window] = field(default_factory=list)
    """The maintenance windows that are open: people are not told of incidents at once."""

    @property
    def tone(self) -> Tone:
        """The worst there is: that nobody watches is as bad as not to know, that records may be missing as any trouble."""
        tones = {row.tone for row in self.streams.values()} | ({Tone.UNKNOWN} if any(w.late for w in self.watchers) else set())
        tones |= {Tone.BAD for row in self.streams.values() if row.certificate and row.certificate["color"] == "red"}
        return next((tone for tone in Tone if tone in tones), Tone.UNKNOWN)

    def as_dict(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(),
            "tone": str(self.tone),
            "unknown": None,
            "streams": [row.as_dict() for row in self.streams.values()],
            "watchers": [{"watcher": w.name, "seen_at": _iso(w.seen_at), "late": w.late, "detail": w.detail} for w in self.watchers],
            "incidents": [
                {key: incident[key] for key in ("id", "key", "severity", "title", "detail", "evidence")} | {"opened_at": incident["opened_at"].isoformat()}
                for incident in self.incidents
            ],
            "windows": [{key: _iso(value) for key, value in asdict(window).items()} for window in self.windows],
            "spares": {"wanted": self.spares_wanted, "warm": sum(self.spares.values()), "warming_up": len(self.spares) - sum(self.spares.values())},
        }


@dataclass(frozen=True)
class StreamPage:
    """What the page of one stream shows beyond its row."""

    row: StreamRow
    launches: list[dict[str, Any]]
    """Newest first."""
    audit: list[dict[str, Any]] = field(default_factory=list)
    """Newest first."""

    def as_dict(self) -> dict[str, Any]:
        return self.row.as_dict() | {
            "outages": [entry.as_dict() for entry in self.row.entries],
            "launches": [{key: _iso(value) for key, value in launch.items()} for launch in self.launches],
            "audit": [{key: _iso(value) for key, value in entry.items()} for entry in self.audit],
        }


def read(runtime: Runtime, now: datetime) -> Board:
    """All streams. Raises StateUnavailable."""
    with database.connect(runtime, "reader") as connection:
        connection.execute(f"SET LOCAL statement_timeout = {ANSWER_MS}")
        return _board(connection, runtime, now)


def read_stream(runtime: Runtime, name: str, now: datetime) -> tuple[Board, StreamPage]:
    """One declared stream, and all of them. Raises StateUnavailable."""
    with database.connect(runtime, "reader") as connection:
        connection.execute(f"SET LOCAL statement_timeout = {ANSWER_MS}")
        board = _board(connection, runtime, now)
        launches = connection.execute("SELECT * FROM k2.launches WHERE stream = %s ORDER BY fence DESC LIMIT %s", (name, SHOWN)).fetchall()
        asked = audit.recent(connection, name, SHOWN)
    return board, StreamPage(board.streams[name], launches, asked)


def tone_of(verdict: str, late: bool) -> Tone:
    """An outdated verdict is not known any more, and a verdict that this version does not know is no good one."""
    if late or verdict == Verdict.UNKNOWN:
        return Tone.UNKNOWN
    if verdict in HEALTHY:
        return Tone.GOOD
    return Tone.CALM if verdict in PLANNED else Tone.BAD


def watched(rows: list[dict[str, Any]], now: datetime) -> list[Watcher]:
    """The watchers that there must be, then any other."""
    known = {row["watcher"]: row for row in rows}
    found = []
    for name in dict.fromkeys([*WATCHERS, *known]):
        row = known.get(name)
        limit = WATCHERS.get(name, OUTDATED)
        found.append(Watcher(name, row["seen_at"] if row else None, row is None or now - row["seen_at"] > limit, row["detail"] if row else ""))
    return found


def _board(connection: Connection, runtime: Runtime, now: datetime) -> Board:
    platform = runtime.platform
    account = ledger.read(connection, platform, now)
    known = verdicts.recorded(connection)
    certified = certificates.latest(connection)
    rows = {}
    for name, spec in platform.streams.items():
        last = known.get(name)
        late = last is None or now - last.seen_at > OUTDATED
        rows[name] = StreamRow(
            name=name,
            tone=tone_of(last.verdict if last else Verdict.UNKNOWN, late),
            verdict=last.verdict if last else "not judged yet",
            because=last.because if last else "the watchdog has not looked at it yet",
            since=last.since if last else None,
            seen_at=last.seen_at if last else None,
            observation=last.observation if last else None,
            budget_mb=spec.memory_mb,
            entries=account.of(name),
            summary=account.summaries[name],
            budget=account.budgets[name],
            certificate=certified.get(name),
            late=late,
        )
    return Board(
        at=now,
        streams=rows,
        watchers=watched(watchers.watchers(connection), now),
        incidents=incidents.open_incidents(connection),
        spares={name: warm for name, (_, warm) in read_spares(runtime).items()},
        spares_wanted=platform.spares.count,
        account=account,
        windows=[window for window in windows.unfinished(connection) if window.open_at(now)],
    )


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
