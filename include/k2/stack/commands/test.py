"""Run the tests: unit, DAG policy, integration on an embedded stack that is started once for the run, eight faults among them.

Needs no running platform: the integration tests start their own, in a temporary folder, on free ports.
Anything after -- goes to pytest, as in: ./k2 test -- -k fence
"""

from __future__ import annotations

import argparse
import os
import sys

from k2.stack.home import TREE

SUITES = ("tests/unit", "tests/dags", "tests/integration")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="also what is too long for every day")
    parser.add_argument("--suite", choices=[suite.removeprefix("tests/") for suite in SUITES], help="only this suite")
    parser.add_argument("pytest", nargs="*", metavar="-- ARGS", help="arguments for pytest")


def run(args: argparse.Namespace) -> int:
    suites = [f"tests/{args.suite}"] if args.suite else [suite for suite in SUITES if (TREE / suite).is_dir()]
    named = any(argument.startswith("tests/") for argument in args.pytest)
    scope = ["--hypothesis-profile=full"] if args.full else ["-m", "not full"]
    command = [sys.executable, "-m", "pytest", *scope, *([] if named else suites), *args.pytest]
    os.chdir(TREE)
    os.execv(sys.executable, command)
