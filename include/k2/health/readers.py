"""Reads the platform and judges what it reads. A source that fails makes its own checks unknown, and no other.

Client libraries are imported inside the functions: DAG files import what imports this module.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from k2.health.checks import Check, CheckResult, Status, dlq_rate, measured, share, stream, unknown
from k2.registry.observed import DriverState, Observation, Wanted
from k2.registry.platform import Layer
from k2.registry.runtime import Runtime

if TYPE_CHECKING:
    from pyiceberg.table.snapshots import Snapshot

log = logging.getLogger(__name__)

WINDOW = timedelta(hours=24)
QUIET_AFTER_START = timedelta(minutes=10)
"""A stream that was started less long ago may still catch up: how it fares opens no incident."""
BATCHES = 20
MIB = 1024 * 1024


def examine(runtime: Runtime, now: datetime) -> list[CheckResult]:
    """Every check of every subject."""
    streams = list(runtime.platform.streams)
    exchanges = list(runtime.platform.exchanges)
    parts: list[tuple[Callable[[Runtime, datetime], Iterable[CheckResult]], Iterable[tuple[Check, str]]]] = [
        (read_streams, [(c, s) for c in (Check.STREAM, Check.LAG_ROWS, Check.LAG_SECONDS) for s in streams]),
        (read_driver_memory, [(Check.MEMORY, s) for s in streams]),
        (read_process_memory, [(Check.MEMORY, p) for p in _wanted_processes(runtime)]),
        (read_checkpoints, [(c, s) for c in (Check.CHECKPOINT_SIZE, Check.BATCH_DURATION) for s in streams]),
        (read_dlq, [(Check.DLQ_RATE, e) for e in exchanges]),
        (read_freshness, [(Check.FRESHNESS, t) for t in _fed_tables(runtime)]),
        (read_disk, [(Check.DISK, "home")]),
    ]
    found: list[CheckResult] = []
    for reader, concerned in parts:
        try:
            found += reader(runtime, now)
        except Exception as error:  # whatever a client library raises, the other checks still count
            log.exception("%s failed", reader.__name__)
            found += [unknown(check, subject, f"{type(error).__name__}: {error}") for check, subject in concerned]
    return mute(runtime, found, now)


def mute(runtime: Runtime, results: list[CheckResult], now: datetime) -> list[CheckResult]:
    """Take the voice from results of streams that nobody wants to run, or that were started a moment ago, and of what they feed."""
    from k2.state.database import StateUnavailable, connect
    from k2.state.streams import wanted_all

    try:
        with connect(runtime, "control") as connection:
            reasons = {name: why for name, wanted in wanted_all(connection).items() if (why := quiet(wanted, now))}
    except StateUnavailable:
        log.exception("nothing is muted")
        return results
    concerned = dict(reasons)
    for name, spec in runtime.platform.streams.items():
        if name in reasons:
            concerned |= dict.fromkeys([*spec.writes, *([spec.exchange] if spec.type == "silver" else [])], reasons[name])
    return [replace(r, muted=concerned[r.subject]) if r.status is not Status.GREEN and r.subject in concerned else r for r in results]


def quiet(wanted: Wanted, now: datetime) -> str | None:
    """Why a stream's lag and the like surprise nobody; None when they should."""
    if wanted.desired != "running":
        return "the stream is wanted stopped"
    if wanted.intent_at is None:
        return "the stream was never started"
    if now - wanted.intent_at < QUIET_AFTER_START:
        return f"the stream was started at {wanted.intent_at:%H:%M:%S} UTC"
    return None


def read_streams(runtime: Runtime, now: datetime) -> Iterable[CheckResult]:
    """Verdict and lag of each stream, by looking as the watchdog does."""
    from k2 import watchdog

    for look in watchdog.look(runtime):
        yield stream(look.observation.stream, look.decision.verdict, look.decision.because)
        yield from judge_lag(runtime, look.observation)


def judge_lag(runtime: Runtime, seen: Observation) -> Iterable[CheckResult]:
    limits, head = runtime.platform.thresholds, seen.head.value
    for check, threshold, value in (
        (Check.LAG_ROWS, limits.lag_rows, head.lag_rows if head else None),
        (Check.LAG_SECONDS, limits.lag_seconds, head.lag_seconds if head else None),
    ):
        if value is None:
            yield unknown(check, seen.stream, seen.head.error or seen.checkpoint.error or "the source's head and the checkpoint give no such number", threshold)
        else:
            yield measured(check, seen.stream, value, threshold, f"source head at {seen.head.at:%H:%M:%S} UTC")


def read_driver_memory(runtime: Runtime, now: datetime) -> Iterable[CheckResult]:
    from k2.launchers.client import AgentClient

    limit = runtime.platform.thresholds.memory_percent
    with AgentClient(runtime) as agent:
        drivers = agent.drivers()
    for name, spec in runtime.platform.streams.items():
        newest = next(iter(drivers.get(name, [])), None)
        if newest is None or newest.state is not DriverState.RUNNING:
            yield unknown(Check.MEMORY, name, "no driver runs", limit)
        elif newest.memory_mb is None:
            yield unknown(Check.MEMORY, name, "the host agent has not measured its driver yet", limit)
        else:
            yield share(Check.MEMORY, name, newest.memory_mb, spec.memory_mb, limit, "MiB")


def read_process_memory(runtime: Runtime, now: datetime) -> Iterable[CheckResult]:
    """The embedded stack's processes and the spares against their budgets, without the drivers, which have their own."""
    from k2.launchers.client import AgentClient
    from k2.launchers.spares import read_spares
    from k2.processes import ProcessId, family, memory_mb
    from k2.stack.home import Home
    from k2.stack.records import recall

    limit = runtime.platform.thresholds.memory_percent
    with AgentClient(runtime) as agent:
        pids = [d.pid for drivers in agent.drivers().values() for d in drivers if d.pid is not None]
    spares = {name: family([process]) for name, (process, _) in read_spares(runtime).items()}
    apart = {p.pid for p in family(p for p in map(ProcessId.of, pids) if p)} | {p.pid for members in spares.values() for p in members}
    for name, members in spares.items():
        yield share(Check.MEMORY, f"spare {name}", memory_mb(members), runtime.platform.spares.memory_mb, limit, "MiB")
    for name in _wanted_processes(runtime):
        budget = runtime.platform.processes[name]
        process = recall(Home(runtime.home), name)
        members = [p for p in family([process]) if p.pid not in apart] if process else []
        if members:
            yield share(Check.MEMORY, name, memory_mb(members), budget, limit, "MiB")
        else:
            yield unknown(Check.MEMORY, name, "it does not run", limit)


def _wanted_processes(runtime: Runtime) -> list[str]:
    """The declared processes that this stack was asked to run: with the real exchanges there is no simulator."""
    from k2.stack.home import Home, read_json

    wanted = read_json(Home(runtime.home).wanted_file)
    return [name for name in runtime.platform.processes if wanted is None or name in wanted["services"]]


def read_checkpoints(runtime: Runtime, now: datetime) -> Iterable[CheckResult]:
    """Size of each checkpoint, and how long its last batches took against the trigger: one slow batch alone is no trouble."""
    from k2.checkpoints.scan import Facts, scan

    limits = runtime.platform.thresholds
    for name, spec in runtime.platform.streams.items():
        path = runtime.checkpoint(name)
        facts = scan(path) if path.exists() else Facts()
        if facts.files:
            yield measured(Check.CHECKPOINT_SIZE, name, facts.bytes / MIB, limits.checkpoint_mb, f"{facts.files} files below {path.name}")
        else:
            yield unknown(Check.CHECKPOINT_SIZE, name, "it has no checkpoint yet", limits.checkpoint_mb)
        if batches := facts.batch_seconds(BATCHES):
            evidence = f"{median(batches):.1f} of {spec.trigger_seconds} s, median of the last {len(batches)} batches"
            percent = 100 * median(batches) / spec.trigger_seconds
            yield measured(Check.BATCH_DURATION, name, percent, limits.batch_percent_of_trigger, evidence)
        else:
            yield unknown(Check.BATCH_DURATION, name, "it has finished no batch yet", limits.batch_percent_of_trigger)


def read_dlq(runtime: Runtime, now: datetime) -> Iterable[CheckResult]:
    """The DLQ's share per exchange, from what each Silver commit says of its batch."""
    limit = runtime.platform.thresholds.dlq_percent
    for name, spec in runtime.platform.streams.items():
        if spec.type != "silver":
            continue
        history = _appends(runtime, spec.writes[0])
        if history is None:
            yield unknown(Check.DLQ_RATE, spec.exchange, f"{spec.writes[0]} does not exist yet", limit)
            continue
        recent = [s for s in history if _at(s) >= now - WINDOW]
        silent = sum("k2.rows-dlq" not in _properties(s) for s in recent)
        if silent:
            yield unknown(Check.DLQ_RATE, spec.exchange, f"{silent} of {len(recent)} commits of {name} do not say how many rows they split", limit)
            continue
        silver = sum(int(_properties(s)["k2.rows-silver"]) for s in recent)
        dlq = sum(int(_properties(s)["k2.rows-dlq"]) for s in recent)
        yield dlq_rate(spec.exchange, silver, dlq, limit, _span(recent, now))


def read_freshness(runtime: Runtime, now: datetime) -> Iterable[CheckResult]:
    """Age of the newest commit that brought rows, per table that a stream feeds all the time."""
    limit = runtime.platform.thresholds.lag_seconds
    for name in _fed_tables(runtime):
        history = _appends(runtime, name)
        filled = [s for s in history or [] if int(_properties(s).get("added-records", 0)) > 0]
        if filled:
            newest = max(map(_at, filled))
            yield measured(Check.FRESHNESS, name, max(0.0, (now - newest).total_seconds()), limit, f"last rows committed at {newest:%Y-%m-%d %H:%M:%S} UTC")
        else:
            yield unknown(Check.FRESHNESS, name, "no commit with rows yet", limit)


def read_disk(runtime: Runtime, now: datetime) -> Iterable[CheckResult]:
    """Each file system that the platform writes to, once."""
    limit = runtime.platform.thresholds.disk_percent
    seen: set[int] = set()
    for subject, path in (("home", runtime.home), ("checkpoints", runtime.checkpoints)):
        if path.exists() and (device := path.stat().st_dev) not in seen:
            seen.add(device)
            usage = shutil.disk_usage(path)
            yield share(Check.DISK, subject, (usage.total - usage.free) / MIB, usage.total / MIB, limit, "MiB")


def _fed_tables(runtime: Runtime) -> list[str]:
    return [name for name, table in runtime.platform.tables.items() if table.layer is not Layer.DLQ]


def _appends(runtime: Runtime, table: str) -> list[Snapshot] | None:
    """The retained snapshots that added data, in the order of their commit; None when there is no such table."""
    from k2.catalog import open_table

    found = open_table(runtime, table, "reader")
    return None if found is None else [s for s in found.metadata.snapshots if s.summary and s.summary.operation.value == "append"]


def _properties(snapshot: Snapshot) -> dict[str, Any]:
    return snapshot.summary.additional_properties if snapshot.summary else {}


def _at(snapshot: Snapshot) -> datetime:
    return datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)


def _span(snapshots: list[Snapshot], now: datetime) -> str:
    """What the window really covers: a young table has less history than the window."""
    if not snapshots:
        return f"the last {WINDOW.total_seconds() / 3600:g} h (no commit)"
    return f"the last {min(WINDOW, now - _at(snapshots[0])).total_seconds() / 3600:.1f} h"
