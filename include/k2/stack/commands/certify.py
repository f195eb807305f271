"""Check again, from metadata alone, that a stream lost nothing and doubled nothing: every batch that its tables still know of.

Reads snapshots, manifests and the checkpoint, no data. Without STREAM it checks all of them.
Exit code 0 when all are green, 1 when one is red, 3 when none is red and something cannot be known.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from k2.registry.certificate import Certificate

CODES = {"green": 0, "red": 1, "unknown": 3}
STYLES = {"green": "green", "passed": "green", "red": "bold red", "failed": "bold red", "unknown": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stream", metavar="STREAM", nargs="?", help="a stream of platform.yaml, such as bronze_binance; all without it")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def run(args: argparse.Namespace) -> int:
    from k2.probes.state import StateProbe
    from k2.stack.chosen import chosen
    from k2.stack.errors import K2Error
    from k2.stack.progress import console
    from k2.state import certificates
    from k2.state.database import StateUnavailable
    from k2.supervision.certificate import certify
    from k2.watchdog.certifying import read_history

    runtime, streams = chosen(args.stream)
    found: list[tuple[Certificate, int, list[int]]] = []
    state = StateProbe(runtime)
    try:
        for stream in streams:
            certificate = certify(read_history(runtime, state, stream, files_of=None))
            kept = state.ask(lambda connection, stream=stream: certificates.kept(connection, stream))
            found.append((certificate, len(kept), certificates.changed(kept)))
    except StateUnavailable as error:
        raise K2Error(f"{str(error).splitlines()[0]}: start the platform with ./k2 up") from error
    finally:
        state.close()
    if args.json:
        print(json.dumps([c.as_dict() | {"kept": count, "changed": changed} for c, count, changed in found], indent=1))
    else:
        for certificate, count, changed in found:
            console().print(render(certificate, count, changed))
    codes = [1 if changed else CODES[certificate.color] for certificate, _, changed in found]
    return 1 if 1 in codes else max(codes)


def render(certificate: Certificate, kept: int, changed: list[int]) -> Group:
    """`kept` certificates are in the database, and those with the ids `changed` are not as they were written."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    color = str(certificate.color)
    covers = f"batches {certificate.first}-{certificate.last}" if certificate.batches else "no batch"
    fences = ", ".join(str(f) for f in certificate.fences) or "none"
    table = Table("Check", "Result", "First batch", "Evidence", box=None, header_style="bold", pad_edge=False)
    for check in certificate.checks:
        table.add_row(check.name, f"[{STYLES[check.result]}]{check.result}[/]", "" if check.batch is None else str(check.batch), escape(check.evidence))
    signed = f"{kept} certificates are kept, each as it was written"
    if changed:
        signed = f"[{STYLES['red']}]of {kept} kept certificates these were changed, or the one before them is gone: {', '.join(map(str, changed))}[/]"
    return Group(
        f"[bold]{certificate.stream}[/] is [{STYLES[color]}]{color}[/]: {covers}, {certificate.rows:,} rows, fences {fences}",
        table,
        signed,
        "",
    )
