"""Hurt a whole platform at random, and prove afterwards that nothing was lost, doubled or committed by a stale driver.

Starts a platform with Airflow in a home of its own (K2_HOME with -chaos behind it), lets trades flow at a steady rate, and
does the faults of a plan that follows from the seed alone: drivers, spares, feeds and the host agent killed, frozen, out of
memory; broker, registry, database, triggerer and scheduler gone or silent; a full disk; second drivers and second watchdogs.
After each, every stream must commit again within the fault's limit. Ctrl-C stops the platform; --resume goes on at the
round that was interrupted. Exits 0 only if all streams came back each time and the proof holds.
"""

from __future__ import annotations

import argparse

from k2.stack.progress import Terminal, console


def _faults(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and 1000")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, metavar="S", help="the faults of an earlier run (default: a new seed, printed)")
    parser.add_argument("--faults", type=_faults, default=50, metavar="N", help="how many (default: %(default)s; about 45 s each)")
    parser.add_argument("--resume", action="store_true", help="go on with the run that was interrupted, with its seed and faults")
    parser.add_argument("--discard", action="store_true", help="remove what an earlier run has kept, and begin a new one")


def run(args: argparse.Namespace) -> int:
    import random

    from k2.chaos.scenario import Options, Run, default_home
    from k2.stack.errors import K2Error

    if args.resume and args.seed is not None:
        raise K2Error("--resume goes on with the seed of the interrupted run: leave out --seed")
    if args.resume and args.discard:
        raise K2Error("--resume goes on with what --discard would remove: leave out one of them")
    shown = console()
    with Terminal() as progress:
        chaos = Run(default_home(), shown, progress)
        if args.discard:
            chaos.discard()
        if args.resume:
            header, done = chaos.resume()
        else:
            header, done = chaos.begin(Options(random.randrange(10_000) if args.seed is None else args.seed, args.faults)), []
        shown.print(f"Seed {header.seed}, {header.faults} faults, {len(done)} rounds done before" if done else f"Seed {header.seed}, {header.faults} faults")
        if header.without:
            shown.print(f"Left out on this machine: {', '.join(header.without)} (only root can fill a disk of the checkpoints' own, and make control groups)")
        return 0 if chaos.go(header, done) else 1
