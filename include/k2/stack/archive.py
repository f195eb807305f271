"""The class-data archive that drivers start from: their Java classes, parsed once per list of jars instead of at each start."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from k2.processes import ProcessId, end, family
from k2.registry.runtime import class_archive
from k2.stack.home import TREE
from k2.stack.progress import Progress

SECONDS = 600


def ensure_archive(jars: Path, java_home: Path, log: Path, progress: Progress) -> None:
    """Write the archive if it is missing. Drivers start without one too, only slower, so a failure is told and not raised."""
    archive = class_archive(jars)
    if archive.exists() or not os.access(archive.parent, os.W_OK):
        return
    with (archive.parent / ".archive.lock").open("w") as turn:
        progress.now("preparing the drivers' Java classes (once, about a minute)")
        fcntl.flock(turn, fcntl.LOCK_EX)
        if archive.exists():
            return
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        environment |= {"PYTHONPATH": str(TREE / "include"), "JAVA_HOME": str(java_home)}
        command = [sys.executable, str(TREE / "spark_jobs" / "archive.py"), "--jars", str(jars)]
        with log.open("ab") as output:
            done = _run(command, environment, output)
        progress.say(
            "the drivers' Java classes are prepared" if done else f"the drivers' Java classes could not be prepared, so drivers start slower: see {log}"
        )


def _run(command: list[str], environment: dict[str, str], output: IO[bytes]) -> bool:
    """Whether the command succeeded in time. Whatever it started is gone afterwards."""
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True) as process:
        leader = ProcessId.of(process.pid)
        try:
            return process.wait(SECONDS) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            end(family([leader] if leader else []), grace_seconds=0)
