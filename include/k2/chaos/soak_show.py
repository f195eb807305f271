"""What a soak prints: slopes with their errors, and what follows from them in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from k2.chaos import growth
from k2.chaos.sampling import Samples
from k2.chaos.soak import Outcome


def report(outcome: Outcome) -> Iterator[Table | str]:
    samples = outcome.samples
    yield _memory(samples)
    yield _commits(samples)
    yield _disk(samples)
    verdicts = ", ".join(f"{name} {count}" for name, count in sorted(samples.verdicts.items()))
    yield f"Verdicts, samples of each: {verdicts or 'none'}"
    if outcome.slow_seconds is not None:
        yield f"The slow batch took {outcome.slow_seconds:.0f} s."
    yield f"{samples.hours * 60:.0f} minutes, {outcome.restarts} restarts."


def _slope(found: growth.Slope | None) -> str:
    return "-" if found is None else f"{found.per_hour:+,.1f} ± {growth.ERRORS * found.error:,.1f}"


def _memory(samples: Samples) -> Table:
    table = Table(title="Memory, without the warm-up", title_justify="left")
    for name in ("process", "MiB now", "MiB/h", "it"):
        table.add_column(name, justify="right" if "MiB" in name else "left")
    for name, found in sorted(samples.memory_mb.items()):
        warm = growth.warm(found)
        table.add_row(name, f"{found[-1][1]:,.0f}", _slope(growth.slope(warm)), growth.judgement(warm, samples.hours, samples.room_mb[name]))
    table.caption = (
        "leaks: fills its budget within a week. slows down: it would, but its second half rose less than its first: only a longer run can tell. "
        f"No word on runs under {growth.LEAST_HOURS * 60:.0f} minutes"
    )
    return table


def _commits(samples: Samples) -> Table:
    table = Table(title="Seconds from a batch's plan to its commit", title_justify="left")
    for name in ("stream", "batches", "p50", "p95", "p95 first half", "p95 second half", "lag, rows, now"):
        table.add_column(name, justify="left" if name == "stream" else "right")
    for name, of in sorted(samples.commit_seconds.items()):
        if found := growth.commits(of):
            lag = samples.lag_rows.get(name)
            numbers = (found.p50, found.p95, found.p95_first_half, found.p95_second_half)
            table.add_row(name, f"{found.count:,}", *(f"{n:.2f}" for n in numbers), f"{lag[-1][1]:,.0f}" if lag else "-")
    return table


def _disk(samples: Samples) -> Table:
    table = Table(title="On disk, without the warm-up", title_justify="left")
    for name in ("folder", "files", "files/h", "MiB", "MiB/h"):
        table.add_column(name, justify="left" if name == "folder" else "right")
    for name, files in sorted(samples.files.items()):
        mib = samples.mib[name]
        slopes = [_slope(growth.slope(growth.warm(of))) for of in (files, mib)]
        table.add_row(name, f"{files[-1][1]:,.0f}", slopes[0], f"{mib[-1][1]:,.1f}", slopes[1])
    return table
