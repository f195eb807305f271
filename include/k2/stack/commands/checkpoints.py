"""Examine checkpoints: healthy, growing, about to break or damaged; each finding with its evidence, what follows, and what to do. Reads only.

doctor               all checkpoints of the platform
doctor STREAM        that of one stream
doctor PATH          any folder of a checkpoint, also when no platform runs: it is compared with nothing beside it

Exit code 0 when all are healthy or growing, 1 when one is damaged or about to break, 3 when none is and something cannot be known.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from k2.checkpoints.examine import Examination


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("doctor",), help="what to do")
    parser.add_argument("subject", metavar="STREAM|PATH", nargs="?", help="a stream of platform.yaml, or the folder of a checkpoint; all streams without it")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def run(args: argparse.Namespace) -> int:
    from k2.checkpoints.doctor import Health
    from k2.stack.progress import console

    found = _examine(args.subject)
    if args.json:
        print(json.dumps([e.as_dict() for e in found], indent=1))
    else:
        for examination in found:
            console().print(render(examination))
    seen = {e.health for e in found}
    return 1 if seen & {Health.DAMAGED, Health.BREAKING} else 3 if Health.UNKNOWN in seen else 0


def _examine(subject: str | None) -> list[Examination]:
    from k2.checkpoints.doctor import Surroundings
    from k2.checkpoints.examine import NotACheckpoint, examine
    from k2.checkpoints.survey import examine_all
    from k2.stack.chosen import chosen
    from k2.stack.errors import K2Error

    now = datetime.now(UTC)
    if subject is not None and _is_path(subject):
        path = Path(subject)
        try:
            if not path.exists() and not path.is_symlink():
                raise K2Error(f"{path} is not there: name the folder of a checkpoint, or a stream")
            return [examine(path.absolute(), Surroundings(alone=True), now)]
        except NotACheckpoint as error:
            raise K2Error(str(error)) from None
        except OSError as error:
            raise K2Error(f"{path}: {error.strerror}: name a folder that may be read") from None
    runtime, streams = chosen(subject)
    try:
        return examine_all(runtime, now, None if subject is None else [runtime.platform.streams[s].checkpoint for s in streams])
    except OSError as error:
        raise K2Error(f"{runtime.checkpoints} cannot be listed: {error.strerror}") from error


def _is_path(subject: str) -> bool:
    try:
        return "/" in subject or Path(subject).is_dir()
    except OSError:
        return True


def render(found: Examination) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.text import Text

    from k2.checkpoints.names import printable
    from k2.checkpoints.report import signed, size

    style = {"healthy": "green", "growing": "yellow"}.get(str(found.health), "bold red")
    whose = f" of {found.stream}" if found.stream else ""
    lines = [
        Text.assemble((f"  {finding.health}: ", "bold"), f"{finding.evidence}\n    what follows: {finding.consequence}\n    what to do: {finding.fix}")
        for finding in found.findings
    ]
    if not found.exists:
        return Group(f"[bold]{escape(found.folder)}[/]{whose}: {escape(found.retired or found.absence)}", *lines, "")
    growth = "not known yet" if found.growth_per_day is None else signed(found.growth_per_day)
    at = f", {found.committed_at:%Y-%m-%d %H:%M:%S} UTC" if found.committed_at else ""
    parts = [
        f"[bold]{escape(found.folder)}[/]{whose} is [{style}]{found.health}[/]",
        f"  query {escape(printable(found.query_id or '-'))}, source {', '.join(found.sources) or '-'}",
        f"  planned {_or_dash(found.planned)}, committed {_or_dash(found.committed)}{at}",
        f"  {found.files:,} files, {size(found.bytes)}, of that {size(found.state_bytes)} of state; growth a day: {growth}",
    ]
    return Group(*parts, *lines, "")


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)
