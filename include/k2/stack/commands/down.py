"""Stop the drivers and all services in order, then prove that no process of this K2_HOME is left.

Works also when the supervisor was killed, and when nothing runs. Data is kept.
"""

from __future__ import annotations

import argparse

from k2.stack.progress import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> int:
    from k2.stack import control
    from k2.stack.errors import K2Error

    del args
    with Terminal() as progress:
        report = control.down(progress=progress)
    if report.left:
        raise K2Error(f"these processes could not be ended: {', '.join(str(p.pid) for p in report.left)}: end them as the user that owns them")
    if not (report.stopped or report.drivers or report.killed):
        print("Nothing was running.")
        return 0
    extra = f", {report.killed} stray processes ended" if report.killed else ""
    print(f"Stopped {len(report.stopped)} services and {len(report.drivers)} drivers{extra}. No process of this platform is left.")
    return 0
