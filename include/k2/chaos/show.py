"""What a run prints: a line per round, the table, the proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from k2.chaos.journal import Result
from k2.chaos.proof import Proof
from k2.demo import show as demo
from k2.reconcile import table as reconciliation


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def line(result: Result) -> str:
    """One round when it is over."""
    if result.trouble:
        return f"     [bold red]{result.trouble}[/]  ({result.did}; {result.how})"
    hangs = [f"{stream} {verdict} after {seconds:.1f} s" for stream, verdict, seconds in result.hangs]
    found = f"found after {_seconds(result.detected)} s ({result.detected_as or 'nothing was to be seen'})"
    said = "; ".join([result.did, *hangs, found, f"back after {_seconds(result.recovered)} s: {result.how}"])
    return f"     {'[yellow]not done[/]: ' if result.skipped else ''}{said}"


def table(results: Sequence[Result]) -> Table:
    """Every round: what was hurt, how soon that was found, how soon all streams committed again, and how."""
    shown = Table(title="Faults: seconds after each", title_justify="left")
    for name in ("", "fault", "target", "detected", "recovered", "how"):
        shown.add_column(name, justify="right" if name in ("", "detected", "recovered") else "left")
    for r in results:
        how = f"[red]{r.trouble}[/]" if r.trouble else f"not done: {r.did}" if r.skipped else r.how
        shown.add_row(str(r.number), "\n".join(r.kinds), "\n".join(r.targets), _seconds(r.detected), _seconds(r.recovered), how)
    return shown


def proof(found: Proof) -> Iterator[object]:
    """The reconciliation, the gaps of the feeds, the content, and commits that should not be."""
    yield reconciliation.table(found.partitions)
    yield demo.gaps({exchange: audit.gaps for exchange, audit in found.kafka.items()})
    yield demo.content(found.silver, found.kafka)
    yield from (f"[bold red]Certificate of {stream}:[/] {said}" for stream, said in found.certificates.items() if said)
    yield from (f"[bold red]Stale commit:[/] {sentence}" for sentence in found.stale)


def summary(results: Sequence[Result], found: Proof) -> str:
    """The run in one line."""
    faults = sum(len(r.kinds) for r in results if not r.skipped)
    skipped = sum(len(r.kinds) for r in results if r.skipped)
    failed = [r.number for r in results if r.trouble]
    back = "all streams back" if not failed else f"round {', '.join(map(str, failed))} failed"
    said = f"{found.lost} lost, {found.doubled} doubled, {len(found.stale)} stale commits, {faults} faults, {back}"
    said += f" ({skipped} faults found nothing to hurt)" if skipped else ""
    red = [stream for stream, why in found.certificates.items() if why]
    said += f", certificates not green: {', '.join(red)}" if red else ""
    said += f", never done: {', '.join(never)}" if (never := never_done(results)) else ""
    return f"[bold {'green' if holds(results, found) else 'red'}]{said}[/]"


def holds(results: Sequence[Result], found: Proof) -> bool:
    """Whether the platform has passed: everything proven, every stream back each time, and no kind of fault that was only planned."""
    broken = found.lost or found.doubled or found.stale or any(found.certificates.values()) or any(r.trouble for r in results)
    return not broken and not never_done(results)


def never_done(results: Sequence[Result]) -> list[str]:
    """The kinds of faults that found nothing to hurt each time that they came."""
    done = {kind for r in results if not r.skipped for kind in r.kinds}
    return sorted({kind for r in results for kind in r.kinds} - done)
