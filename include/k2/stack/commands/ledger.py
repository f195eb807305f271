"""Show every outage of the streams, step by step from the last good moment to having caught up, and what is left of the error budget.

Times are seconds that each step took: until it was detected, until a start was decided, until the old driver was fenced off, until a
new one was launched, until it committed, until it had caught up. It reads what was written down, also while the streams are down.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from k2.ledger import Account

SHOWN = 40
"""Outages in the table; --json has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stream", nargs="?", metavar="STREAM", help="a stream of platform.yaml; without it, all of them")
    parser.add_argument("--days", type=_days, metavar="N", help="how far to look back (default: the window of the error budget)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def run(args: argparse.Namespace) -> int:
    from k2.ledger import read
    from k2.stack.chosen import chosen
    from k2.stack.errors import K2Error
    from k2.stack.progress import console
    from k2.state.database import StateUnavailable, connect

    runtime, _ = chosen(args.stream)
    try:
        with connect(runtime, "reader") as connection:
            account = read(connection, runtime.platform, datetime.now(UTC), stream=args.stream, days=args.days)
    except StateUnavailable as error:
        raise K2Error(f"the ledger cannot be read: {str(error).splitlines()[0]}: ./k2 up brings PostgreSQL back") from error
    if args.json:
        print(json.dumps(account.as_dict(), indent=1))
    else:
        console().print(render(account))
    return 0


def render(account: Account) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from k2.supervision.budget import minutes
    from k2.supervision.ledger import STEPS

    parts: list[object] = []
    if account.entries:
        table = Table("When (UTC)", "Stream", "Verdict", "State", box=None, header_style="bold", pad_edge=False)
        for step in (*STEPS, "down"):
            table.add_column(step.capitalize(), justify="right")
        table.add_column("How")
        table.add_column("Fences")
        for entry in account.entries[-SHOWN:]:
            steps = [_seconds(seconds) for seconds in (*entry.steps.values(), entry.down)]
            state = f"[red]{entry.state}[/]" if entry.state == "open" else entry.state
            how = entry.how or ("-" if entry.state == "open" else "by itself" if not entry.launches else "?")
            outage = entry.outage
            fences = " ".join(str(fence) for fence in (outage.fence, *entry.fences))
            table.add_row(f"{outage.detected_at.astimezone(UTC):%m-%d %H:%M:%S}", outage.stream, escape(outage.verdict), state, *steps, how, fences)
        parts += [table, ""]
        if len(account.entries) > SHOWN:
            parts.append(f"The last {SHOWN} of {len(account.entries)}; --json has all.\n")
    days = f"{account.days:g} day{'s' if account.days != 1 else ''}"
    if not account.entries:
        parts.append(f"No outage of {'any stream' if len(account.summaries) > 1 else next(iter(account.summaries))} in the last {days}.\n")
    streams = Table("Stream", "Outages", box=None, header_style="bold", pad_edge=False)
    for name in ("Detected to recovered p50", "p95", "Last good to recovered p50", "p95", "Time between", "Budget used, min", "left"):
        streams.add_column(name, justify="right")
    streams.add_column("")
    for name, summary in account.summaries.items():
        budget = account.budgets[name]
        figures = [_seconds(x) for x in (summary.to_recovery_p50, summary.to_recovery_p95, summary.down_p50, summary.down_p95)]
        left = minutes(budget.left_seconds)
        count = f"{summary.outages}" + (f", {summary.open} open" if summary.open else "")
        between = "-" if summary.between is None else _long(summary.between)
        streams.add_row(name, count, *figures, between, minutes(budget.used_seconds), f"[red]{left}[/]" if budget.burning else left, escape(budget.burning))
    parts.append(streams)
    slo = account.slo
    parts.append(f"Budget: {minutes(account.allowed_seconds)} min in {slo.window_days} days, for {slo.target_percent:g} %. Times are seconds.")
    return Group(*parts)  # type: ignore[arg-type]


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"


def _long(seconds: float) -> str:
    hours = timedelta(seconds=seconds) / timedelta(hours=1)
    return f"{hours / 24:.1f} d" if hours >= 48 else f"{hours:.1f} h" if hours >= 1 else f"{seconds / 60:.0f} min"


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= 36_500:
        raise argparse.ArgumentTypeError(f"{text} is no number of days above 0: try 7")
    return days
