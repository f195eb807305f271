"""Every command that README and runbook show is run, on the platform of this run; these tests come last and end it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from k2.registry.runtime import Runtime
from k2.stack.cli import COMMANDS
from k2.stack.home import TREE

DOCUMENTS = ("README.md", "docs/runbook.md")

EXECUTED = {
    "config": "ok",
    "reconcile": "Nothing lost, nothing doubled",
    "checkpoints doctor": "bronze-binance of bronze_binance is healthy",
    "checkpoints doctor silver_binance": "source iceberg",
    "certify": "bronze_binance is green",
    "certify bronze_binance": "nobody else wrote",
    "status": "bronze_binance",
    "explain bronze_binance": "the head of the source",
    "explain silver_binance": "the head of the source",
    "logs kafka -n 50": "",
    "ledger": "Detected to recovered",
    "ledger bronze_binance": "Budget: 201.6 min",
    "audit": "",
    "logs airflow_scheduler -n 50": "",
    "logs airflow_triggerer -n 50": "",
    "logs bronze_binance -n 50": "session is up",
    "logs bronze_binance --fence 1": "session is up",
    "logs postgres": "",
    "logs host_agent": "",
    "logs spares": "",
    "bench parse": "slowest dag file",
    "up": "Airflow: http://127.0.0.1:",
    "demo": "Nothing lost, nothing doubled",
    "down": "No process of this platform is left",
}
"""Each command as the documents show it, in the order in which they are run here, and words that its output holds."""

ELSEWHERE = {
    "test": "this run",
    "COMMAND --help": "test_help_of_every_command",
    "certify STREAM": "certify bronze_binance",
    "checkpoints doctor PATH": "tests/unit/stack/test_checkpoints_command.py",
    "explain STREAM": "explain bronze_binance",
    "logs NAME": "logs airflow_scheduler -n 50",
    "logs STREAM --fence N": "logs bronze_binance --fence 1",
    "demo --kills 20 --exit": "too long for every day: tests/integration/test_demo.py, with --full",
    "bench watch": "ten minutes with the machine to itself: run by hand, its figures are in decision 0009",
    "bench prune": "minutes with the machine to itself; tests/unit/bench/test_prune.py runs it with few files",
    "bench heal": "an hour with the whole platform to itself: run by hand, its figures are in decision 0007",
    "bench hang": "half an hour with the whole platform to itself: run by hand, its figures are in decision 0008",
    "chaos --faults 50": "40 minutes: run by hand; eight of its faults are tests/integration/chaos",
    "chaos --resume": "goes on with a run that was interrupted: by hand",
    "soak --hours 1": "an hour: run by hand",
    "demo --replay DIR": "tests/integration/test_demo.py, with --full",
}
"""Commands that need no run of their own here, and what runs them."""


def shown() -> set[str]:
    """Every command in the documents, without a comment behind it."""
    found = set()
    for name in DOCUMENTS:
        for match in re.finditer(r"\./k2 ([^`\n#]+)", (TREE / name).read_text()):
            found.add(re.split(r"\s{2,}|[,.:;)]\s|[.)]$", match.group(1))[0].strip())
    return found


def run(home: Path, *arguments: str, seconds: float = 600) -> str:
    """Run one command to its end; it must succeed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("K2_RUNTIME", "AIRFLOW_HOME")} | {"K2_HOME": str(home), "COLUMNS": "200"}
    done = subprocess.run(["./k2", *arguments], cwd=TREE, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"./k2 {' '.join(arguments)} left with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_no_document_shows_a_command_that_nothing_runs() -> None:
    """A command that is added to a document must be added to this module."""
    assert shown() == set(EXECUTED) | set(ELSEWHERE)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(tmp_path: Path, command: str) -> None:
    """--help of each says what it does."""
    assert len(run(tmp_path, command, "--help")) > 100


@pytest.mark.timeout(900)
def test_commands_of_the_documents(platform_stack: Runtime) -> None:
    """Each is run as it is shown, one after the other; the last one leaves nothing behind."""
    for command, words in EXECUTED.items():
        arguments = ["--profile", platform_stack.profile] if command == "up" else []
        started = time.monotonic()
        output = run(platform_stack.home, *command.split(), *arguments)
        assert words in output, f"./k2 {command} took {time.monotonic() - started:.0f} s and printed:\n{output[-3000:]}"
