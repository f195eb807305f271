"""What examining a large checkpoint and planning its pruning costs: `./k2 bench prune`.

The rival is `find`, which prints path, size and time of each file and concludes nothing. Both are whole processes, in turns,
over the same files: the state of one operator in 200 partitions, each version with its checksum, and one file in fifty left
by crashes. The first walk over it, which fills the kernel's caches, is not counted for either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from k2.bench.report import Figure, Report, machine
from k2.stack.errors import K2Error

ROUNDS = 5
FILES = (10_000, 100_000, 1_000_000)
PARTITIONS = 200
BATCHES = 101
DAY = 86_400
RIVAL = "find -printf"

PLAN = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from k2.checkpoints.doctor import Surroundings
from k2.checkpoints.plan import plan

found, made = plan(Path(sys.argv[1]), Surroundings(alone=True), datetime.now(UTC), Path(sys.argv[2]))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"peak_mb": int(peak.split()[1]) / 1024, "health": found.health, "files": found.files, "planned": made.files, "refused": made.refused}))
"""


def run(rounds: int = ROUNDS, sizes: Sequence[int] = FILES) -> Report:
    """Measure doctor and plan over checkpoints of these numbers of files."""
    figures, lines = [], []
    with tempfile.TemporaryDirectory(prefix="k2-bench-") as folder:
        for files in sizes:
            root = Path(folder) / str(files)
            left = make(root, files)
            ours, theirs, peaks = _race(root, left, rounds)
            figures.append(Figure.of(_words(files), ours, "s", rival=RIVAL, rival_samples=theirs))
            lines.append(Figure.of(f"peak memory, {files:,} files", peaks, "MiB"))
    return Report("prune", machine(), (*figures[::-1], *lines))


def _words(files: int) -> str:
    return "one million files" if files == 1_000_000 else f"{files:,} files"


def make(root: Path, files: int) -> int:
    """Write a checkpoint of about so many files, a day old. Returns how many of them are left over."""
    versions, left = max(1, files * 49 // 100 // PARTITIONS), max(1, files // 50 // PARTITIONS)
    last = max(versions, BATCHES) - 1
    texts = {"offsets": f'v1\n{{"batchTimestampMs":0,"conf":{{}}}}\n{{"topic":{{"0":{last}}}}}', "commits": "v1\n{}"}
    for folder in ("offsets", "commits", "sources/0", *(f"state/0/{number}" for number in range(PARTITIONS))):
        (root / folder).mkdir(parents=True)
    (root / "metadata").write_text('{"id":"0c1b7cf6-6e0f-4f6c-9a3e-3d5f2c1b0a99"}')
    (root / "sources/0/0").write_text('\0v1\n{"topic":{"0":0}}')
    for log, text in texts.items():
        for batch in range(last - BATCHES + 1, last + 1):
            (root / log / str(batch)).write_text(text)
    old = time.time() - 2 * DAY
    for number in range(PARTITIONS):
        partition = f"{root}/state/0/{number}"
        for version in range(last + 2 - versions, last + 2):
            kind = "snapshot" if version == last + 2 - versions else "delta"
            _touch(f"{partition}/{version}.{kind}")
            _touch(f"{partition}/.{version}.{kind}.crc")
        for rest in range(left):
            name = f"{partition}/.{rest}.delta.00000000-0000-0000-0000-{rest:012d}.tmp"
            _touch(name)
            os.utime(name, (old, old))
    return left * PARTITIONS


def _touch(name: str) -> None:
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644))


def _race(root: Path, left: int, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of ours and of the rival in each round, and the peak memory of ours in MiB."""
    ours, theirs, peaks = [], [], []
    for number in range(rounds + 1):
        seconds, printed = _timed([sys.executable, "-c", PLAN, str(root), str(root.with_suffix(".plan"))])
        said = json.loads(printed.read())
        if said["health"] != "growing" or said["planned"] != left:
            raise K2Error(f"{root.name} files: the plan is not right, so its time is worth nothing: {said}, {left} leftovers were made")
        rival, printed = _timed(["find", str(root), "-type", "f", "-printf", "%p %s %T@\\n"])
        if (lines := sum(1 for _ in printed)) != said["files"]:
            raise K2Error(f"{root.name} files: find sees {lines} files and ours {said['files']}")
        if number:
            ours.append(seconds)
            theirs.append(rival)
            peaks.append(said["peak_mb"])
    return ours, theirs, peaks


def _timed(command: list[str]) -> tuple[float, IO[bytes]]:
    """Seconds of a whole process, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    out = tempfile.TemporaryFile()  # noqa: SIM115 - the caller reads it
    begun = time.perf_counter()
    subprocess.run(command, stdout=out, env=environment, check=True)
    seconds = time.perf_counter() - begun
    out.seek(0)
    return seconds, out
