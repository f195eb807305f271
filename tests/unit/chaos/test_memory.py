"""A process whose memory is used up does not live on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2.chaos import memory
from k2.processes import ProcessId

NEEDY = "import sys; print('ready', flush=True); sys.stdin.readline(); taken = b'x' * (64 << 20); print(len(taken), flush=True); sys.stdin.readline()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """It rests until it is told to take 64 MiB."""
    child = subprocess.Popen([sys.executable, "-c", NEEDY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.wait()


def identity(child: subprocess.Popen[str]) -> ProcessId:
    found = ProcessId.of(child.pid)
    assert found is not None
    return found


@pytest.mark.skipif(not memory.groups(), reason="no memory control group can be made here: it takes root and a kernel that lets it")
def test_the_kernel_ends_even_a_process_that_rests(child: subprocess.Popen[str]) -> None:
    """Its group's memory is used up by another one, which is spared as long as it can be."""
    with memory.exhausted(identity(child)) as how:
        assert child.wait(60) == -9
    assert "OOM killer" in how
    assert not list(memory.CGROUPS.glob(f"**/k2-chaos-{os.getpid()}-*"))


def test_without_control_groups_its_own_allocation_fails(child: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its next need."""
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "none")
    with memory.exhausted(identity(child)):
        said, error = child.communicate("\n\n", timeout=60)
    assert said == "" and "MemoryError" in error
