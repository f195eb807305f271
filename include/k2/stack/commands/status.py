"""Show every service with its memory against its budget, every stream with its verdict, the warm spares, and the open incidents.

Exit code 0 when all services are healthy, 1 when something is not or nothing runs.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from k2.stack.status import PlatformStatus, StreamStatus

GOOD = {"healthy", "done", "IDLE", "PROGRESSING"}
CALM = {"waiting", "starting", "stopped", "stopping", "STARTING", "STOPPED", "STOPPING", "not judged yet"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="keep showing it, every 2 s, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def run(args: argparse.Namespace) -> int:
    from rich.live import Live

    from k2.stack.home import Home
    from k2.stack.progress import console
    from k2.stack.status import read_status

    home = Home.at()
    status = read_status(home)
    if args.json:
        print(json.dumps(status.as_dict(), default=str, indent=1))
    elif args.watch:
        with Live(render(status), console=console(), auto_refresh=False) as live:
            while True:
                time.sleep(2)
                live.update(render(read_status(home)), refresh=True)
    else:
        console().print(render(status))
    healthy = status.running and status.supervised and all(s.state in ("healthy", "done") for s in status.services)
    return 0 if healthy else 1


def render(status: PlatformStatus) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from k2.alerts.messages import advice

    if not status.running:
        return Group(f"The platform of {status.home} is not running: start it with ./k2 up")
    parts: list[object] = []
    services = Table("Service", "State", "PID", "Up", "Restarts", "Memory MiB", "", box=None, header_style="bold", pad_edge=False)
    for s in status.services:
        memory = f"{s.memory_mb:.0f} of {s.budget_mb}" if s.memory_mb is not None and s.budget_mb else f"{s.memory_mb:.0f}" if s.memory_mb is not None else ""
        over = s.memory_mb is not None and s.budget_mb is not None and s.memory_mb > s.budget_mb
        up = _ago(s.uptime_seconds) if s.uptime_seconds is not None else ""
        services.add_row(s.name, _coloured(s.state), str(s.pid or ""), up, str(s.restarts or ""), f"[red]{memory}[/]" if over else memory, escape(s.detail))
    parts.append(services)
    if status.unknown:
        parts.append(f"\n[red]Streams and incidents are unknown:[/] {escape(status.unknown)}")
    else:
        streams = Table("Stream", "Verdict", "Since", "Lag rows", "Last commit", "Certificate", "Memory MiB", "", box=None, header_style="bold", pad_edge=False)
        for t in status.streams:
            memory = f"{t.memory_mb:.0f} of {t.budget_mb}" if t.memory_mb is not None else ""
            lag = "" if t.lag_rows is None else f"{t.lag_rows:,}"
            streams.add_row(t.name, _verdict(t), _since(t.since), lag, _since(t.last_commit_at), _certificate(t), memory, escape(t.because))
        for spare in status.spares:
            streams.add_row("(spare)", spare.state, "", "", "", "", f"{spare.memory_mb:.0f} of {spare.budget_mb}", "takes the place of a driver that dies")
        parts += ["", streams]
        for incident in status.incidents:
            what = f"{escape(incident['title'])}, open for {_since(incident['opened_at'])}: {escape(incident['detail'])}"
            parts += [f"\n[red]{incident['severity']}[/] {what}", *(escape(more) for more in (incident["evidence"], advice(incident)) if more)]
        if not status.incidents:
            parts.append("\nNo open incidents.")
        for window in status.windows:
            when = f"{window.starts_at:%Y-%m-%d %H:%M} to {window.ends_at:%H:%M} UTC"
            what = f"Maintenance of {window.scope}, {when}, by {window.who}: {window.reason}. Incidents are told at its end."
            parts.append(f"[yellow]{escape(what)}[/]")
    parts.append(f"Profile {status.profile}. " + (f"Airflow: {status.airflow}" if status.airflow else "Airflow does not run."))
    if status.not_applied:
        parts.append(f"[yellow]{escape(status.not_applied)}:[/] ./k2 up applies it.")
    if not status.supervised:
        parts.append("[red]The supervisor does not run, so nothing that crashes is started again:[/] ./k2 up starts it.")
    return Group(*parts)  # type: ignore[arg-type]


def _verdict(stream: StreamStatus) -> str:
    """In its color; without one when nobody has confirmed it lately, with its age."""
    from k2.supervision.verdicts import OUTDATED

    if stream.seen_at is None or datetime.now(UTC) - stream.seen_at <= OUTDATED:
        return _coloured(stream.verdict)
    return f"{stream.verdict} [red]{_since(stream.seen_at)} ago[/]"


def _certificate(stream: StreamStatus) -> str:
    style = {"green": "green", "red": "bold red"}.get(str(stream.certificate), "yellow")
    return f"[{style}]{stream.certificate}[/] {_since(stream.certified_at)}" if stream.certificate else ""


def _coloured(state: str) -> str:
    return f"[green]{state}[/]" if state in GOOD else state if state in CALM else f"[red]{state}[/]"


def _since(moment: datetime | None) -> str:
    return "" if moment is None else _ago((datetime.now(UTC) - moment).total_seconds())


def _ago(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"
