"""A spare's line to its agent, in a process of its own and without Spark."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from k2.registry.observed import ExitCode

ROOT = Path(__file__).resolve().parents[3]
SPARE = """
import time
from spare import Channel
channel = Channel()
channel.say_warm()
print("said", flush=True)
print(*channel.wait(), flush=True)
"""


@contextmanager
def line() -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """The agent's end of the line, and the spare that has said that it is warm."""
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'spark_jobs'}"}
    with theirs, subprocess.Popen([sys.executable, "-c", SPARE], stdin=theirs, stdout=subprocess.PIPE, text=True, env=environment) as child:
        theirs.close()
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "said\n"
            yield ours, child
        finally:
            child.kill()


@pytest.mark.parametrize("read", [True, False])
def test_a_spare_ends_with_its_agent(read: bool) -> None:
    """Also with an agent that dies before it has read that the spare is warm, which resets the line in place of closing it."""
    with line() as (agent, child):
        if read:
            assert agent.recv(64) == b"warm\n"
        agent.close()
        assert child.wait(10) == ExitCode.STOPPED


def test_a_spare_is_told_its_stream() -> None:
    """It learns name and fence, and lives on when the agent closes the line right after that."""
    with line() as (agent, child):
        agent.recv(64)
        agent.sendall(b'{"stream": "bronze_kraken", "fence": 7}\n')
        agent.close()
        assert child.stdout is not None
        assert child.stdout.readline() == "bronze_kraken 7\n"
        assert child.wait(10) == 0
