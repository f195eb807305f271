"""What `./k2 status` shows: services with their memory against their budget, streams, incidents."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k2.launchers.spares import read_spares
from k2.processes import ProcessId, family, memory_mb
from k2.registry.runtime import Runtime
from k2.registry.windows import Window
from k2.stack import applied, records
from k2.stack.drivers import recorded_drivers
from k2.stack.home import Home, read_json


@dataclass(frozen=True)
class ServiceStatus:
    name: str
    state: str
    pid: int | None
    uptime_seconds: float | None
    restarts: int
    memory_mb: float | None
    budget_mb: int | None
    detail: str


@dataclass(frozen=True)
class StreamStatus:
    name: str
    verdict: str
    since: datetime | None
    seen_at: datetime | None
    because: str
    lag_rows: int | None
    last_commit_at: datetime | None
    memory_mb: float | None
    budget_mb: int
    certificate: str | None = None
    """Color of the certificate of its newest certified start; None when none was made yet."""
    certified_at: datetime | None = None


@dataclass(frozen=True)
class SpareStatus:
    name: str
    state: str
    """warm, or warming up."""
    memory_mb: float
    budget_mb: int


@dataclass(frozen=True)
class PlatformStatus:
    home: Path
    running: bool
    supervised: bool
    profile: str | None = None
    airflow: str | None = None
    services: list[ServiceStatus] = field(default_factory=list)
    streams: list[StreamStatus] = field(default_factory=list)
    spares: list[SpareStatus] = field(default_factory=list)
    incidents: list[dict[str, Any]] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    """Maintenance windows that are open or to come."""
    not_applied: str = ""
    """What has changed since the last `up`; empty when nothing has."""
    unknown: str = ""
    """Why streams and incidents could not be read; empty when they could."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_status(home: Home) -> PlatformStatus:
    """Looks only: starts nothing, waits for nothing."""
    runtime = home.runtime()
    if runtime is None:
        return PlatformStatus(home=home.path, running=False, supervised=False)
    alive = records.living(home)
    drivers = recorded_drivers(runtime)
    spares = read_spares(runtime)
    owned = {p.pid for p in family([*drivers.values(), *(process for process, _ in spares.values())])}
    services = _services(home, runtime, alive, owned)
    streams, incidents, windows, unknown = _streams(runtime, drivers)
    return PlatformStatus(
        home=home.path,
        running=bool(alive),
        supervised=records.supervisor_of(home) is not None,
        profile=runtime.profile,
        airflow=runtime.airflow if "airflow_api_server" in alive else None,
        services=services,
        streams=streams,
        spares=[
            SpareStatus(name, "warm" if warm else "warming up", memory_mb(family([process])), runtime.platform.spares.memory_mb)
            for name, (process, warm) in spares.items()
        ],
        incidents=incidents,
        windows=windows,
        not_applied=applied.not_applied(home, runtime),
        unknown=unknown,
    )


def _services(home: Home, runtime: Runtime, alive: dict[str, ProcessId], drivers: set[int]) -> list[ServiceStatus]:
    known: dict[str, dict[str, Any]] = (read_json(home.state_file) or {}).get("services", {})
    now = datetime.now(UTC).timestamp()
    found = []
    for name in dict.fromkeys([*known, *alive]):
        facts = known.get(name, {})
        process = alive.get(name)
        state = facts.get("phase", "running")
        if process is None and facts.get("pid"):
            state = "gone"
        # Drivers and spares are the host agent's children, but they have budgets of their own.
        members = [p for p in family([process]) if p.pid not in drivers] if process else []
        found.append(
            ServiceStatus(
                name=name,
                state=state,
                pid=process.pid if process else None,
                uptime_seconds=now - facts["started_at"] if process and facts.get("started_at") else None,
                restarts=facts.get("restarts", 0),
                memory_mb=memory_mb(members) if process else None,
                budget_mb=runtime.platform.processes.get(name),
                detail=facts.get("detail", ""),
            )
        )
    return found


def _streams(runtime: Runtime, drivers: dict[str, ProcessId]) -> tuple[list[StreamStatus], list[dict[str, Any]], list[Window], str]:
    from k2.state import certificates, windows
    from k2.state.database import StateUnavailable, connect
    from k2.state.incidents import open_incidents

    try:
        with connect(runtime, "reader") as connection:
            verdicts = {row["stream"]: row for row in connection.execute("SELECT * FROM k2.verdicts").fetchall()}
            incidents = open_incidents(connection)
            certified = certificates.latest(connection)
            planned = [window for window in windows.unfinished(connection) if window.ends_at > datetime.now(UTC)]
    except StateUnavailable as error:
        return [], [], [], str(error).splitlines()[0]
    found = []
    for name, stream in runtime.platform.streams.items():
        row = verdicts.get(name, {})
        seen = row.get("observation", {})
        checkpoint, head = ((seen.get(part) or {}).get("value") or {} for part in ("checkpoint", "head"))
        processes = [process for tag, process in drivers.items() if tag.partition("#")[0] == name]
        found.append(
            StreamStatus(
                name=name,
                verdict=row.get("verdict", "not judged yet"),
                since=row.get("since"),
                seen_at=row.get("seen_at"),
                because=row.get("because", ""),
                lag_rows=head.get("lag_rows"),
                last_commit_at=datetime.fromisoformat(checkpoint["last_commit_at"]) if checkpoint.get("last_commit_at") else None,
                memory_mb=memory_mb(family(processes)) if processes else None,
                budget_mb=stream.memory_mb,
                certificate=certified.get(name, {}).get("color"),
                certified_at=certified.get(name, {}).get("at"),
            )
        )
    return found, incidents, planned, ""
