"""Run a platform of its own under constant load for hours, and say what grows: memory, commit times, checkpoints, tables, lag.

Reads everything every half minute. Ctrl-C ends the run and prints what was read until then. With --idle no trade comes at
all; with --slow-batch one batch of a stream is made to take five triggers while its tasks go on: neither may restart a stream.
Exits 1 if a process leaks, or if a stream was restarted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from k2.stack.errors import K2Error
from k2.stack.progress import Terminal, console


def _hours(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{value:g} is not above 0 and at most 1000")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hours", type=_hours, default=1.0, metavar="H", help="how long (default: %(default)g)")
    parser.add_argument("--profile", default="standard", help="a profile of platform.yaml (default: %(default)s)")
    parser.add_argument("--idle", action="store_true", help="with the market paused")
    parser.add_argument("--slow-batch", metavar="STREAM", help="first make one batch of STREAM take five times its trigger")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was read to FILE as well")


def run(args: argparse.Namespace) -> int:
    from k2.chaos import growth, soak, soak_show
    from k2.registry.platform import load_platform

    streams = load_platform(args.profile).streams
    if args.slow_batch and args.slow_batch not in streams:
        raise K2Error(f"--slow-batch {args.slow_batch!r} is not declared: use one of {', '.join(streams)}")
    if args.idle and args.slow_batch:
        raise K2Error("--slow-batch needs trades: leave out --idle")
    with Terminal() as progress:
        outcome = soak.soak(soak.Options(args.hours, args.profile, args.idle, args.slow_batch), progress)
    shown = console()
    for part in soak_show.report(outcome):
        shown.print(part)
    if args.json is not None:
        try:
            args.json.write_text(json.dumps(soak.as_dict(outcome)) + "\n")
        except OSError as error:
            raise K2Error(f"--json {args.json}: {error.strerror}: name a file in a folder that exists and may be written") from None
    samples = outcome.samples
    judged = [growth.judgement(growth.warm(of), samples.hours, samples.room_mb[name]) for name, of in samples.memory_mb.items()]
    return 1 if outcome.restarts or "leaks" in judged else 0
