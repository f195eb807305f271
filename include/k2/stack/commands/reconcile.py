"""Prove, record by record, that Kafka = Bronze and Bronze = Silver + DLQ, on the running platform.

Looks at every record that Kafka holds now, and waits for the streams to commit those that are on their way.
Exits 0 only if nothing was lost, changed or doubled.
"""

from __future__ import annotations

import argparse

from k2.stack.errors import K2Error
from k2.stack.progress import Terminal, console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", type=float, default=120, metavar="S", help="wait this long for records on their way (default: %(default)s s)")


def run(args: argparse.Namespace) -> int:
    from k2.reconcile import table
    from k2.reconcile.read import reconcile
    from k2.stack.home import Home
    from k2.stack.records import supervisor_of

    home = Home.at()
    runtime = home.runtime()
    if runtime is None or supervisor_of(home) is None:
        raise K2Error(f"the platform of {home.path} is not running: start it with ./k2 up")
    with Terminal() as progress:
        progress.now("reading every record of Kafka, Bronze, Silver and the DLQ")
        results = reconcile(runtime, runtime.platform, args.wait)
    shown = console()
    shown.print(table.table(results))
    shown.print(table.summary(results))
    return 0 if table.holds(results) else 1
