"""Start the platform and wait until all of it is healthy.

Safe to repeat: what runs is left alone, what is missing is started. The usual ports are used where they are free.
State is kept in K2_HOME (by default .k2 in the project), downloads in K2_CACHE (by default ~/.cache/k2).
"""

from __future__ import annotations

import argparse

from k2.stack.progress import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", help="a profile of platform.yaml: standard, or demo with triggers of 5 s (default: as the last time, at first standard)")
    parser.add_argument("--services", type=lambda text: text.split(","), metavar="A,B", help="only these and what they need; a later `up` adds the rest")
    parser.add_argument(
        "--real-exchanges",
        action="store_true",
        default=None,
        help="read from the exchanges themselves instead of the exchange simulator; a K2_HOME that was started so stays so",
    )


def run(args: argparse.Namespace) -> int:
    from k2.stack import airflow, control

    with Terminal() as progress:
        runtime = control.up(profile=args.profile, services=args.services, real_exchanges=args.real_exchanges, progress=progress)
    if args.services is None:
        print(f"Airflow: {runtime.airflow}  login: {airflow.LOGIN}  password: in {runtime.secrets / 'airflow_admin'}")
    print("./k2 status shows the platform, ./k2 down stops it.")
    return 0
