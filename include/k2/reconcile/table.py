"""The reconciliation as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from k2.reconcile.compare import PartitionResult


def holds(results: Sequence[PartitionResult]) -> bool:
    """Whether nothing was lost or doubled; nothing to look at is no proof."""
    return all(r.ok for r in results) and any(r.bronze for r in results)


def table(results: Iterable[PartitionResult]) -> Table:
    """One line per topic and partition that holds anything, and the verdict on each."""
    shown = Table(title="Reconciliation, record by record", title_justify="left")
    for name in ("topic", "partition", "Kafka", "Bronze", "Silver", "DLQ", "lost", "changed", "duplicates", ""):
        shown.add_column(name, justify="left" if name in ("topic", "") else "right")
    for r in results:
        if r.ok and not (r.kafka or r.bronze or r.silver or r.dlq):
            continue
        lost, duplicates = r.not_in_bronze + r.in_neither, r.doubled_in_bronze + r.doubled_below
        numbers = (r.partition, r.kafka, r.bronze, r.silver, r.dlq, lost, r.changed_in_bronze, duplicates)
        shown.add_row(r.topic, *(f"{n:,}" for n in numbers), "[green]ok[/]" if r.ok else f"[red]{'; '.join(r.examples)}[/]")
    return shown


def summary(results: Sequence[PartitionResult]) -> str:
    kafka, bronze, silver, dlq = (sum(getattr(r, name) for r in results) for name in ("kafka", "bronze", "silver", "dlq"))
    if holds(results):
        return f"[bold green]Nothing lost, nothing doubled:[/] Kafka {kafka:,}, Bronze {bronze:,} = Silver {silver:,} + DLQ {dlq:,}"
    return f"[bold red]The reconciliation does not hold:[/] Kafka {kafka:,}, Bronze {bronze:,}, Silver {silver:,} + DLQ {dlq:,}"
