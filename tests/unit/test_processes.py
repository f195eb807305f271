"""Identity, family and end of processes, on real ones."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from k2.processes import ProcessId, end, family, memory_mb

SLEEP = "import time; time.sleep(60)"
IGNORES_TERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
HAS_CHILD = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print(c.pid, flush=True); c.wait()"
HAS_SESSION_MEMBER = f"""
import os, subprocess, sys
if os.fork() == 0:
    child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])
    print(child.pid, flush=True)
    os._exit(0)
os.wait()
import time; time.sleep(60)
"""


@contextlib.contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def identity(pid: int) -> ProcessId:
    found = ProcessId.of(pid)
    assert found is not None
    return found


def test_a_living_process_is_alive_and_a_zombie_is_not() -> None:
    """A process that has exited and was not waited for counts as dead."""
    with running("pass") as child:
        deadline = time.monotonic() + 10
        while ProcessId.of(child.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ProcessId.of(child.pid) is None
    assert identity(os.getpid()).alive


def test_a_reused_pid_is_another_process() -> None:
    """The same pid with another start time is not the process that was recorded, and is never signalled."""
    with running(SLEEP) as child:
        real = identity(child.pid)
        other = ProcessId(real.pid, real.start - 1)
        assert not other.alive
        assert other.send(signal.SIGKILL) is False
        assert real.alive


def test_family_has_descendants() -> None:
    """A child of a root belongs to its family."""
    with running(HAS_CHILD) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert {p.pid for p in family([identity(parent.pid)])} == {parent.pid, child}


def test_family_has_members_of_the_session_whose_parent_is_gone() -> None:
    """A grandchild that was orphaned is still found by the session that the root leads."""
    with running(HAS_SESSION_MEMBER) as leader:
        assert leader.stdout is not None
        orphan = int(leader.stdout.readline())
        assert orphan in {p.pid for p in family([identity(leader.pid)])}


def test_family_of_the_dead_is_empty() -> None:
    """A root that is gone brings nobody in, whatever has its pid now."""
    assert family([ProcessId(os.getpid(), 1)]) == []


def test_end_asks_first() -> None:
    """A process that heeds SIGTERM is not killed."""
    with running(SLEEP) as child:
        assert end([identity(child.pid)], grace_seconds=10) == []
        assert child.wait(10) == -signal.SIGTERM


def test_end_kills_what_does_not_leave() -> None:
    """After the grace a process that ignores SIGTERM is killed, and named."""
    with running(IGNORES_TERM) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = identity(child.pid)
        assert end([process], grace_seconds=0.2) == [process]
        assert not process.alive


def test_memory_is_counted_in_mebibytes() -> None:
    """This Python holds between 5 and 2000 MiB, and a process that is gone holds none."""
    assert 5 < memory_mb([identity(os.getpid())]) < 2000
    assert memory_mb([ProcessId(2**22 - 1, 1)]) == pytest.approx(0)
