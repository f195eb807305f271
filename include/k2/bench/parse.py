"""How long each DAG file takes to import, with `airflow.sdk` imported already: `./k2 bench parse`.

Every sample is a process of its own, because a second import in one process costs nothing. The rival is a file that
declares one empty DAG: what Airflow itself takes for any file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from k2.bench.report import Figure, Report, machine

DAGS = Path(__file__).resolve().parents[3] / "dags"
SAMPLES = 7
TIMEOUT_SECONDS = 120
RIVAL = "a file with one empty DAG"

MEASURE = """
import importlib.util, sys, time
import airflow.sdk
spec = importlib.util.spec_from_file_location("measured", sys.argv[1])
module = importlib.util.module_from_spec(spec)
started = time.perf_counter()
spec.loader.exec_module(module)
print((time.perf_counter() - started) * 1000)
"""

EMPTY = """
from datetime import UTC, datetime
from airflow.sdk import DAG
with DAG("empty", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    pass
"""


def dag_files(folder: Path = DAGS) -> list[Path]:
    return sorted(folder.glob("*.py"))


def measure(file: Path, home: Path) -> float:
    """Milliseconds that one import of `file` takes in a fresh process. Raises RuntimeError with what the file printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW__") and k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(DAGS.parent / "include")}
    done = subprocess.run([sys.executable, "-c", MEASURE, str(file)], env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{file.name} cannot be imported:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def run(samples: int = SAMPLES, files: Sequence[Path] | None = None) -> Report:
    """Measure every DAG file. The files take turns, so that a busy moment of the machine does not fall on one alone."""
    files = dag_files() if files is None else files
    with tempfile.TemporaryDirectory(prefix="k2-bench-") as folder:
        home = Path(folder)
        empty = home / "empty_dag.py"
        empty.write_text(EMPTY)
        taken: dict[Path, list[float]] = {file: [] for file in [*files, empty]}
        for file in taken:
            measure(file, home)  # the first import compiles, as Airflow's own first one does
        for _ in range(samples):
            for file, values in taken.items():
                values.append(measure(file, home))
    rival = taken.pop(empty)
    figures = [Figure.of(file.name, values, "ms", rival=RIVAL, rival_samples=rival) for file, values in taken.items()]
    slowest = max(figures, key=lambda figure: figure.value)
    named = Figure("slowest dag file", slowest.value, slowest.unit, slowest.rival, slowest.rival_value, slowest.ratio, slowest.samples)
    return Report("parse", machine(), (named, *figures))
