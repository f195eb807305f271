"""What the demo prints: rich tables from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.table import Table

from k2.demo.counts import Counts
from k2.demo.kills import Recovery
from k2.feeds.audit import Audit, Gap
from k2.registry.platform import Layer, Platform

SHOWN = 5


def live(platform: Platform, counts: Counts, verdicts: Mapping[str, str], seconds: float) -> Table:
    """Rows per exchange and table, and what the watchdog says of each stream."""
    table = Table(title=f"Trades so far, {seconds:.0f} s", title_justify="left")
    for name in ("exchange", "Kafka", "Bronze", "Silver", "Bronze stream", "Silver stream"):
        table.add_column(name, justify="left" if "stream" in name or name == "exchange" else "right")
    for exchange in platform.exchanges:
        streams = {s.type: n for n, s in platform.streams.items() if s.exchange == exchange}
        kafka = counts.topics[exchange]
        table.add_row(
            exchange,
            "?" if kafka is None else f"{kafka:,}",
            f"{counts.of(platform, exchange, Layer.BRONZE):,}",
            f"{counts.of(platform, exchange, Layer.SILVER):,}",
            verdicts.get(streams.get("bronze", ""), "-"),
            verdicts.get(streams.get("silver", ""), "-"),
        )
    table.caption = f"dead-letter table: {dead_letters(platform, counts):,} rows"
    return table


def live_line(platform: Platform, counts: Counts) -> str:
    """The same in one line, where the output is not a terminal."""
    parts = [
        f"{e}: Kafka {counts.topics[e]}, Bronze {counts.of(platform, e, Layer.BRONZE)}, Silver {counts.of(platform, e, Layer.SILVER)}"
        for e in platform.exchanges
    ]
    return " | ".join([*parts, f"dead letters: {dead_letters(platform, counts)}"])


def dead_letters(platform: Platform, counts: Counts) -> int:
    return sum(n for t, n in counts.tables.items() if platform.tables[t].layer is Layer.DLQ)


def recovery(recoveries: Sequence[Recovery]) -> Table:
    """Seconds after each kill -9 until the platform had detected, decided, launched and committed again."""
    table = Table(title="kill -9, and back: seconds after the kill", title_justify="left")
    table.add_column("stream")
    for name in ("detected", "decided", "launched", "first commit"):
        table.add_column(name, justify="right")
    for item in recoveries:
        steps = (item.detected, item.decided, item.launched, item.first_commit)
        table.add_row(item.kill.stream, *("-" if s is None else f"{s:.1f}" for s in steps))
    if any(item.first_commit is None for item in recoveries):
        table.caption = "-: nothing was left to commit, or the next kill came first"
    return table


def gaps(found: Mapping[str, Sequence[Gap]]) -> Table | str:
    """What the feeds missed on the websocket, by exchange."""
    if not any(found.values()):
        return "Gaps: none. Every trade that the exchanges made reached Kafka."
    table = Table(title="Gaps: trades that the feeds missed on the websocket", title_justify="left")
    for name in ("exchange", "symbol", "trades", "first id", "last id", "from", "to"):
        table.add_column(name, justify="right" if name in ("trades", "first id", "last id") else "left")
    for exchange, gaps_ in found.items():
        for gap in gaps_:
            times = (datetime.fromtimestamp(us / 1e6, UTC).isoformat(" ", "milliseconds") for us in (gap.first_us, gap.last_us))
            table.add_row(exchange, gap.symbol, f"{gap.trades:,}", str(gap.first_id or "-"), str(gap.last_id or "-"), *times)
    return table


def is_true_copy(silver: Audit, kafka: Audit) -> bool:
    """Whether Silver holds the trades that reached Kafka as the exchange sent them.

    After faults on demand some of them belong in the dead-letter table.
    """
    return not (silver.changed_count or silver.unexpected_count) and (silver.missing == kafka.missing or bool(silver.faults))


def content(silver: Mapping[str, Audit], kafka: Mapping[str, Audit]) -> str:
    """What Silver made of the trades that were sent, by exchange."""
    lines = []
    for exchange, found in silver.items():
        trades = found.expected - found.missing - found.changed_count
        if is_true_copy(found, kafka[exchange]):
            lines.append(f"Content: {trades:,} trades of {exchange} are in Silver with the id, price, quantity, side and time that the exchange sent.")
            continue
        lines.append(
            f"[bold red]Content: of {exchange}'s trades {found.missing - kafka[exchange].missing:,} reached Kafka and not Silver, "
            f"{found.changed_count:,} differ, {found.unexpected_count:,} were never sent:[/]"
        )
        lines += [f"  sent {sent}, in Silver {got}" for sent, got in found.changed[:SHOWN]] + [f"  never sent: {trade}" for trade in found.unexpected[:SHOWN]]
    return "\n".join(lines)
