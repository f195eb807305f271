"""Show the end of the log of a service (see ./k2 status), of the supervisor, or of a stream's newest driver, or of an earlier one by its fence."""

from __future__ import annotations

import argparse
import time
from collections import deque
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a service such as kafka, a stream such as bronze_binance, or supervisor")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on, until Ctrl-C")
    parser.add_argument("--fence", type=int, metavar="N", help="of a stream: the driver that held fence N, such as one that died (./k2 explain names them)")
    parser.add_argument("-n", "--lines", type=int, default=50, help="how many lines (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from k2.stack.home import Home

    logs = Home.at().logs
    path = find_log(logs, args.name) if args.fence is None else driver_log(logs, args.name, args.fence)
    with path.open(errors="replace") as log:
        for line in deque(log, maxlen=args.lines):
            print(line, end="")
        while args.follow:
            if line := log.readline():
                print(line, end="", flush=True)
            elif path.stat().st_size < log.tell():
                log.seek(0)  # it was rotated
            else:
                time.sleep(0.2)
    return 0


def find_log(logs: Path, name: str) -> Path:
    """The log of a service, or of the driver with the highest fence of a stream. Raises K2Error naming the logs that exist."""
    from k2.stack.errors import K2Error

    drivers = sorted((logs / "drivers" / name).glob("*.log")) if "/" not in name else []
    candidates = [*([logs / f"{name}.log"] if "/" not in name else []), *reversed(drivers)]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted({p.stem for p in logs.glob("*.log")} | {p.name for p in (logs / "drivers").glob("*") if p.is_dir()})
    raise K2Error(f"there is no log of {name!r} in {logs}: " + (f"use one of {', '.join(known)}" if known else "nothing has been started yet, see ./k2 up"))


def driver_log(logs: Path, stream: str, fence: int) -> Path:
    """The log of one driver of a stream. Raises K2Error naming the fences whose logs are kept."""
    from k2.stack.errors import K2Error

    kept = {int(path.stem): path for path in (logs / "drivers" / Path(stream).name).glob("*.log") if path.stem.isdigit()}
    if fence in kept:
        return kept[fence]
    raise K2Error(
        f"there is no log of {stream}'s driver with fence {fence}: " + (f"kept are those of {', '.join(map(str, sorted(kept)))}" if kept else "none is kept")
    )
