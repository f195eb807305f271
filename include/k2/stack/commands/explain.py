"""Show what the watchdog sees of a stream now, and how its verdict follows from it. Looks only, and changes nothing.

Exit code 0 for a stream that is well or stopped on request, 1 for any other, also when something cannot be known.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group
    from rich.table import Table

    from k2.registry.observed import Death, Decision, Observation
    from k2.registry.runtime import Runtime

SHOWN_DEATHS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stream", metavar="STREAM", help="a stream of platform.yaml, such as bronze_binance")


def run(args: argparse.Namespace) -> int:
    from k2.probes import Observer
    from k2.stack.chosen import chosen
    from k2.stack.progress import console
    from k2.supervision.verdicts import CALM
    from k2.watchdog import judge_all

    runtime, (stream,) = chosen(args.stream)
    with Observer(runtime) as observer:
        observations = observer.observe()  # of all: a start may have to wait for another stream
    now = datetime.now(UTC)
    (found,) = [look for look in judge_all(runtime, observations.values(), now) if look.decision.stream == stream]
    console().print(render(found.observation, found.decision, now))
    console().print(_certificate(runtime, stream), markup=False)
    return 0 if found.decision.verdict in CALM else 1


def _certificate(runtime: Runtime, stream: str) -> str:
    """The newest certificate, in a line."""
    from k2.state import certificates
    from k2.state.database import StateUnavailable, connect

    try:
        with connect(runtime, "reader") as connection:
            row = certificates.latest(connection).get(stream)
    except StateUnavailable:
        return "\nCertificate: cannot be known, PostgreSQL does not answer"
    if row is None:
        return "\nCertificate: none yet, it is written once a start has committed"
    bad = [f"{check['name']}: {check['evidence']}" for check in row["checks"] if check["result"] != "passed"]
    covers = f"batches {row['first']}-{row['last']}" if row["batches"] else "no batch"
    return f"\nCertificate: {row['color']}, fence {row['fence']}, {row['at']:%Y-%m-%d %H:%M} UTC, {covers}" + "".join(f"; {words}" for words in bad)


def render(observation: Observation, decision: Decision, now: datetime) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from k2.supervision.explain import action, rows

    table = Table("Source", "Age", "Reading", box=None, header_style="bold", pad_edge=False)
    for row in rows(observation, now):
        age = "" if row.age_seconds is None else f"{row.age_seconds:.1f} s"
        table.add_row(row.source, age, f"[red]{escape(row.text)}[/]" if row.error is not None else escape(row.text))
    parts = [table]
    if observation.wanted.value is not None and observation.wanted.value.lately:
        parts += ["", _deaths(observation.wanted.value.lately, now)]
    return Group(f"[bold]{observation.stream}[/] is [bold]{decision.verdict}[/]: {escape(decision.because)}", f"What follows: {action(decision)}", "", *parts)


def _deaths(lately: Sequence[Death], now: datetime) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from k2.supervision.failures import blame

    table = Table("Died", "Fence", "Class", "Exit", "Commits", "Fingerprint", "Batch", "To blame", box=None, header_style="bold", pad_edge=False)
    for death in lately[:SHOWN_DEATHS]:
        said = death.failure
        blamed = blame(said) if said.records else ""
        table.add_row(
            f"{(now - death.at).total_seconds():.0f} s ago",
            str(death.fence),
            f"{death.kind}: {said.dependency}" if said.dependency else str(death.kind),
            "?" if death.exit_code is None else str(death.exit_code),
            str(death.commits),
            said.fingerprint,
            "" if said.batch is None else str(said.batch),
            escape(blamed),
        )
    return table
