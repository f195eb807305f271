"""Run one benchmark and print its figures; a ratio is ours / rival, so smaller is better.

parse   how long each DAG file takes to import, against a file with one empty DAG
watch   what watching a thousand streams costs, and how late they are looked at, against a plain loop
prune   what examining a checkpoint of a million files and planning its pruning costs, against find
heal    how long a stream whose JVM was killed takes to its next commit, against a restart loop around spark-submit
hang    how long a driver that hangs goes without its right verdict, against what its trigger promises
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from k2.stack.errors import K2Error

BENCHMARKS = ("parse", "heal", "hang", "watch", "prune")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=BENCHMARKS, help="which benchmark")
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="how many times everything is measured (default: the benchmark's own number)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE instead of printing a table")


def _rounds(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and 1000")
    return value


def run(args: argparse.Namespace) -> int:
    report = importlib.import_module(f"k2.bench.{args.name}").run(**({} if args.rounds is None else {"rounds": args.rounds}))
    if args.json is None:
        print(report.table())
        return 0
    try:
        args.json.write_text(report.to_json() + "\n")
    except OSError as error:
        raise K2Error(f"--json {args.json}: {error.strerror}: name a file in a folder that exists and may be written") from None
    return 0
