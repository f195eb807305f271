"""Show who asked what of the streams, who approved it, why, and how the stream stood before and after. Newest first."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stream", metavar="STREAM", nargs="?", help="only what concerns this stream")
    parser.add_argument("-n", type=int, default=20, metavar="ROWS", help="how many rows (20)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def run(args: argparse.Namespace) -> int:
    from k2.stack.chosen import chosen
    from k2.stack.errors import K2Error
    from k2.stack.progress import console
    from k2.state import audit
    from k2.state.database import StateUnavailable, connect

    runtime, _ = chosen(args.stream)
    try:
        with connect(runtime, "reader") as connection:
            rows = audit.recent(connection, args.stream, args.n)
    except StateUnavailable as error:
        raise K2Error(str(error).splitlines()[0]) from None
    if args.json:
        print(json.dumps(rows, default=str, indent=1))
    else:
        console().print(render(rows) if rows else "Nobody has asked for anything yet.")
    return 0


def render(rows: list[dict[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("At (UTC)", "Who", "Approved by", "Asked", "Outcome", "Before", "After", "Reason", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        asked = f"{row['action']} {row['target']}"
        because = (row["after"] or {}).get("because")
        outcome = row["outcome"] + (f": {because}" if because else "")
        cells = [
            f"{row['at']:%Y-%m-%d %H:%M:%S}",
            row["who"],
            row["approved_by"] or "",
            asked,
            outcome,
            _words(row["before"]),
            _words(row["after"]),
            row["reason"],
        ]
        table.add_row(*map(escape, cells))
    return table


def _words(stands: dict[str, Any] | None) -> str:
    """How a stream stood: running, generation 4, fence 7, IDLE, batch 120."""
    if not stands:
        return ""
    said = [stands.get("desired"), *(f"{name} {stands[name]}" for name in ("generation", "fence") if stands.get(name) is not None), stands.get("verdict")]
    if stands.get("batch") is not None:
        said.append(f"batch {stands['batch']}")
    return ", ".join(str(word) for word in said if word)
