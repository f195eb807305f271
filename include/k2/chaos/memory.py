"""Takes the memory away from one process: a control group that gives it no more, or a limit of its address space."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k2.processes import ProcessId

CGROUPS = Path("/sys/fs/cgroup")
MORE_BYTES = 1 << 20


@contextmanager
def exhausted(process: ProcessId) -> Iterator[str]:
    """While this is held, the process gets hardly any memory that it does not have yet. Yields how.

    Where the kernel's memory control groups can be written, what it has stays its own and the kernel's OOM killer ends it at its
    next need. Elsewhere its address space may not grow, and its own allocations fail.
    """
    group = _group(process)
    if group is None:
        used = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(process.pid, resource.RLIMIT_AS, (used, used))
        yield "RLIMIT_AS at what it has: allocations fail"
        return
    try:
        yield f"control group of {MORE_BYTES >> 20} MiB more: the kernel's OOM killer"
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def _group(process: ProcessId) -> Path | None:
    """A new memory control group with the process in it, v1 or v2; None where none can be made."""
    for root, limit in ((CGROUPS / "memory", "memory.limit_in_bytes"), (CGROUPS, "memory.max")):
        group = root / f"k2-chaos-{os.getpid()}-{process.pid}"
        try:
            group.mkdir()
            (group / limit).write_text(str(MORE_BYTES))
            (group / "cgroup.procs").write_text(str(process.pid))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        return group
    return None
