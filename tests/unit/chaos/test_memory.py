"""A process that may have no more memory does not live on when it needs some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from k2.chaos import memory
from k2.processes import ProcessId

GREEDY = "import sys; print('ready', flush=True); sys.stdin.readline(); taken = b'x' * (64 << 20); print(len(taken), flush=True); sys.stdin.readline()"


@pytest.mark.parametrize("groups", [True, False])
def test_a_process_that_needs_more_ends(groups: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel where control groups can be written, by its own failed allocation elsewhere."""
    if not groups:
        monkeypatch.setattr(memory, "CGROUPS", tmp_path / "none")
    child = subprocess.Popen([sys.executable, "-c", GREEDY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        process = ProcessId.of(child.pid)
        assert process is not None
        with memory.exhausted(process) as how:
            said, error = child.communicate("\n\n", timeout=60)
        assert said == ""
        assert child.returncode == -9 if "OOM killer" in how else "MemoryError" in error
    finally:
        child.kill()
        child.wait()
    assert not list(memory.CGROUPS.glob("**/k2-chaos-*")) if groups else True
