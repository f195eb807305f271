"""The class-data archive that drivers start from: their Java classes, parsed once per list of jars instead of at each start."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

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
            try:
                done = (
                    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=SECONDS, check=False).returncode
                    == 0
                )
            except subprocess.TimeoutExpired:
                done = False
        progress.say(
            "the drivers' Java classes are prepared" if done else f"the drivers' Java classes could not be prepared, so drivers start slower: see {log}"
        )
