"""Run the main job in front of you: trades flow, a driver is killed with -9, Airflow brings it back, and nothing is lost or doubled.

Starts the platform with the demo profile (triggers of 5 s) if it does not run yet. Without --exit it leaves the platform
running and says where Airflow is. With --exit it stops everything, and exits 0 only if the reconciliation holds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from k2.stack.errors import K2Error
from k2.stack.progress import Terminal, console


def _kills(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1000")
    return value


def _speed(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{value:g} is not above 0: 1 is as recorded, 30 is thirty times faster")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exit", action="store_true", help="stop everything at the end; exit 0 only if the reconciliation holds")
    parser.add_argument("--kills", type=_kills, default=1, metavar="N", help="kill N times at random moments over all drivers (default: %(default)s)")
    parser.add_argument("--seed", type=int, metavar="S", help="repeat the random choices of an earlier run (default: a new seed, printed)")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="play the recordings in DIR once, in place of generated trades")
    parser.add_argument("--speed", type=_speed, default=30.0, metavar="X", help="of a replay; 1 is as recorded (default: %(default)g)")


def run(args: argparse.Namespace) -> int:
    import random
    from contextlib import closing

    from k2.demo.market import Market
    from k2.demo.scenario import Demo, Options
    from k2.registry.runtime import Replay
    from k2.stack import airflow, control
    from k2.stack.home import Home
    from k2.stack.records import supervisor_of

    if args.replay and not args.replay.is_dir():
        raise K2Error(f"--replay {args.replay}: there is no such folder: name the folder that holds the recordings")
    replay = Replay(folder=args.replay.absolute(), speed=args.speed) if args.replay else None
    shown = console()
    seed = args.seed if args.seed is not None else random.randrange(10_000)
    ours = supervisor_of(Home.at()) is None
    try:
        with Terminal() as progress:
            runtime = control.up(profile="demo", real_exchanges=False, replay=replay, progress=progress)
        ours = True
        shown.print(f"The platform is up. Seed of this run: {seed}")
        with closing(Demo(runtime, shown, Options(args.kills, seed))) as demo:
            ok = demo.run()
            if not args.exit:
                Market(runtime).resume()
    finally:
        if args.exit and ours:
            with Terminal() as progress:
                report = control.down(progress=progress)
    if args.exit:
        if report.left:
            raise K2Error(f"processes {report.left} could not be ended: end them with kill -9")
        return 0 if ok else 1
    password = runtime.secrets / "airflow_admin"
    secret = password.read_text() if sys.stdout.isatty() else f"in {password}"
    shown.print(f"Airflow: {runtime.airflow}  login: {airflow.LOGIN}  password: {secret}")
    shown.print(f"{'The recordings are over' if replay else 'Trades go on flowing'}. ./k2 status --watch shows the platform, ./k2 down stops it.")
    return 0 if ok else 1
