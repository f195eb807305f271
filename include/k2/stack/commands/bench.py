"""Run one benchmark and print its figures; a ratio is ours / rival, so smaller is better.

parse   how long each DAG file takes to import, against a file with one empty DAG
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from k2.stack.errors import K2Error

BENCHMARKS = ("parse",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=BENCHMARKS, help="which benchmark")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE instead of printing a table")


def run(args: argparse.Namespace) -> int:
    report = importlib.import_module(f"k2.bench.{args.name}").run()
    if args.json is None:
        print(report.table())
        return 0
    try:
        args.json.write_text(report.to_json() + "\n")
    except OSError as error:
        raise K2Error(f"--json {args.json}: {error.strerror}: name a file in a folder that exists and may be written") from None
    return 0
