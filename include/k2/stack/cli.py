"""The command line: `./k2 COMMAND`. Each command is a module of `k2.stack.commands` with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from k2.registry.platform import ConfigError
from k2.registry.runtime import RuntimeMissing
from k2.stack.errors import K2Error

COMMANDS = {
    "up": "start the platform, or bring up what is missing",
    "down": "stop everything and prove that nothing is left",
    "status": "services, streams and open incidents",
    "explain": "what the watchdog sees of a stream, and what it concludes",
    "ledger": "every outage step by step, and what is left of the error budget",
    "audit": "who asked what of the streams, who approved it, and why",
    "logs": "show the log of a service or of a stream's driver",
    "checkpoints": "examine the checkpoints: what is wrong, growing, or about to break",
    "certify": "check from metadata alone that no batch is missing or doubled",
    "reconcile": "prove that nothing was lost or doubled",
    "config": "check include/config/platform.yaml",
    "demo": "the whole platform in front of your eyes: a driver is killed and comes back",
    "chaos": "hurt a platform of its own at random, and prove that nothing was lost or doubled",
    "soak": "constant load for hours on a platform of its own, and what grows under it",
    "test": "run the tests",
    "bench": "run a benchmark",
}
"""Each command and what it does, in the order of the help. Only the module of the command in use is imported."""


def parser_for(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the options of the command that `arguments` name."""
    parser = argparse.ArgumentParser(
        prog="k2",
        description="A streaming lakehouse with Airflow as its control plane, on one machine.",
        epilog="./k2 COMMAND --help says more about a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in arguments if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        if name == chosen:
            module = importlib.import_module(f"k2.stack.commands.{name}")
            command = commands.add_parser(name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
        else:
            commands.add_parser(name, help=summary)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 2 for a mistake that the user can mend, 130 after Ctrl-C or SIGTERM."""
    args = parser_for(arguments).parse_args(arguments)
    try:
        return int(args.run(args))
    except (K2Error, ConfigError, RuntimeMissing) as error:
        print(f"k2: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of `k2 logs | head` has gone
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a command started for itself, it stops either way
    sys.exit(main(sys.argv[1:]))
