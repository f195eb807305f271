"""Takes the memory away from one process: a control group whose memory another one has used up, or a limit of its address space."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k2.processes import ProcessId

CGROUPS = Path("/sys/fs/cgroup")
ROOM_BYTES = 64 << 20
"""Of the control group: less than its greedy member asks for."""

GREEDY = """
import sys
sys.stdin.readline()
taken = bytearray()
while True:
    taken += bytes(1 << 20)
"""
"""The other member of the group. It begins once it has a line to read."""


@contextmanager
def exhausted(process: ProcessId) -> Iterator[str]:
    """While this is held, the process gets no memory that it does not have yet. Yields how.

    Where the kernel's memory control groups can be written, it shares one with a process that uses up all of it, and is the
    one that the kernel's OOM killer prefers. Elsewhere its address space may not grow, and its own allocations fail.
    """
    group = _group(process)
    if group is None:
        used = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(process.pid, resource.RLIMIT_AS, (used, used))
        yield "RLIMIT_AS at what it has: allocations fail"
        return
    greedy = subprocess.Popen([sys.executable, "-c", GREEDY], stdin=subprocess.PIPE, text=True)
    try:
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        (group / "cgroup.procs").write_text(str(greedy.pid))
        greedy.stdin.write("begin\n")  # type: ignore[union-attr]
        greedy.stdin.flush()  # type: ignore[union-attr]
        yield f"control group of {ROOM_BYTES >> 20} MiB, used up: the kernel's OOM killer"
    finally:
        greedy.kill()
        greedy.wait()
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def groups() -> bool:
    """Whether control groups can be written here, so that a process ends for sure."""
    if (group := _group(None)) is None:
        return False
    group.rmdir()
    return True


def _group(process: ProcessId | None) -> Path | None:
    """A new memory control group, v1 or v2, with the process in it; None where none can be made."""
    for root, limit in ((CGROUPS / "memory", "memory.limit_in_bytes"), (CGROUPS, "memory.max")):
        group = root / f"k2-chaos-{os.getpid()}-{process.pid if process else 0}"
        try:
            group.mkdir()
            (group / limit).write_text(str(ROOM_BYTES))
            if process:
                (group / "cgroup.procs").write_text(str(process.pid))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        return group
    return None
