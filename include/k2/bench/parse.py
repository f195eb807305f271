"""How long each DAG file takes to import, with `airflow.sdk` imported already: `./k2 bench parse`.

Every sample is a process of its own, forked from one that has imported something before: a second import in one process
costs nothing. The rival is a file that declares one empty DAG: what Airflow itself takes for any file.

`airflow.sdk` loads its names on first use, so it matters how it was imported. The figures are of forks of a process that
has imported the DAG processor's modules, as Airflow's own are; one more, named so, is of the slowest file after nothing
but `import airflow.sdk`, which charges Airflow's own loading to the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from k2.bench.report import Figure, Report, machine

DAGS = Path(__file__).resolve().parents[3] / "dags"
EMPTY = Path(__file__).resolve().parents[1] / "airflow" / "empty_dag.py"
SAMPLES = 15
START_SECONDS, SAMPLE_SECONDS = 60.0, 1.0
"""What the imports before all samples may take, and one sample."""
RIVAL = "a file with one empty DAG"
AS_AIRFLOW, BARE = "airflow.dag_processing.processor", "airflow.sdk"

MEASURE = """
import importlib, importlib.util, json, os, sys, time
importlib.import_module(sys.argv[1])

def sample(file):
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        spec = importlib.util.spec_from_file_location("measured", file)
        module = importlib.util.module_from_spec(spec)
        started = time.perf_counter()
        try:
            spec.loader.exec_module(module)
            os.write(writer, repr((time.perf_counter() - started) * 1000).encode())
        finally:
            sys.excepthook(*sys.exc_info()) if sys.exc_info()[0] else None
            sys.stderr.flush()
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        sys.exit(f"{os.path.basename(file)} cannot be imported")
    return float(text)

files, samples = sys.argv[3:], int(sys.argv[2])
for file in files:
    sample(file)  # the first import compiles, as Airflow's own first one does
turns = [{file: sample(file) for file in files} for _ in range(samples)]  # in turns, so that a busy moment does not fall on one file alone
print(json.dumps({file: [turn[file] for turn in turns] for file in files}))
"""


def dag_files() -> list[Path]:
    return sorted(DAGS.glob("*.py"))


def measure(files: Sequence[Path], home: Path, samples: int, before: str) -> dict[Path, list[float]]:
    """Milliseconds of each import of each file, the module `before` being imported already.

    Raises RuntimeError with what a file that cannot be imported printed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW__") and k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(DAGS.parent / "include")}
    command = [sys.executable, "-c", MEASURE, before, str(samples), *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=START_SECONDS + SAMPLE_SECONDS * samples * len(files), check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the DAG files could not be measured:\n{done.stderr}")
    return {Path(file): values for file, values in json.loads(done.stdout.splitlines()[-1]).items()}


def run(rounds: int = SAMPLES, files: Sequence[Path] | None = None) -> Report:
    """Measure every DAG file."""
    files = dag_files() if files is None else files
    with tempfile.TemporaryDirectory(prefix="k2-bench-") as folder:
        as_airflow, bare = (_figures(measure([*files, EMPTY], Path(folder), rounds, before), EMPTY) for before in (AS_AIRFLOW, BARE))
    named = replace(_slowest(as_airflow), what="slowest dag file")
    after_bare = replace(_slowest(bare), what=f"slowest dag file after a bare import {BARE}")
    return Report("parse", machine(), (named, after_bare, *as_airflow))


def _figures(taken: dict[Path, list[float]], rival: Path) -> list[Figure]:
    return [Figure.of(file.name, values, "ms", rival=RIVAL, rival_samples=taken[rival]) for file, values in taken.items() if file != rival]


def _slowest(figures: Sequence[Figure]) -> Figure:
    return max(figures, key=lambda figure: figure.value)
