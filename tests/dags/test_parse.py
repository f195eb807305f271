"""Parsing the DAG files: no errors, no deprecated Airflow, nothing heavy, no time lost."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TREE = Path(__file__).resolve().parents[2]
HEAVY = ("pyspark", "pyiceberg", "confluent_kafka", "docker", "pandas", "pyarrow", "psycopg", "slack_sdk", "airflow.providers.slack")
PROBE = """
import json, sys, time, warnings
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
before = set(sys.modules)
warnings.simplefilter("error", FutureWarning)
warnings.simplefilter("error", DeprecationWarning)
# pathspec's own name for the pattern that Airflow asks it for; nothing that a DAG file could change.
warnings.filterwarnings("ignore", message="GitWildMatchPattern")
bag = DagBag(dag_folder=sys.argv[1])
print(json.dumps({
    "errors": {file: str(error) for file, error in bag.import_errors.items()},
    "warnings": {file: [str(w) for w in found] for file, found in bag.captured_warnings.items()},
    "dags": sorted(bag.dags),
    "new": sorted(set(sys.modules) - before),
}))
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    """What a fresh process that parses all DAG files reports."""
    environment = os.environ | {"PYTHONPATH": str(TREE / "include")}
    done = subprocess.run([sys.executable, "-c", PROBE, str(TREE / "dags")], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_import_errors_and_no_deprecations(parsed: dict[str, Any]) -> None:
    """Deprecation and future warnings are errors, and none was merely captured."""
    assert parsed["errors"] == {}
    assert parsed["warnings"] == {}
    assert len(parsed["dags"]) == 7


@pytest.mark.parametrize("package", HEAVY)
def test_nothing_heavy_is_imported(parsed: dict[str, Any], package: str) -> None:
    """Client libraries belong into the running task."""
    assert [name for name in parsed["new"] if name == package or name.startswith(f"{package}.")] == []


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("folder", ["include/k2", "spark_jobs"])
def test_only_two_packages_import_airflow_and_none_the_dags(folder: str) -> None:
    """Arrows point one way: dags -> k2.airflow and k2.web -> the rest."""
    for path in (TREE / folder).rglob("*.py"):
        packages = imported(path)
        assert not packages & {"dags", "plugins"}, path
        if folder == "spark_jobs" or path.relative_to(TREE / folder).parts[0] not in ("airflow", "web"):
            assert "airflow" not in packages, path


def test_plugins_folder_holds_registrations_only() -> None:
    """Airflow imports every module below plugins/ under its bare name, so there are no packages, and no name that another module has."""
    ignored = (TREE / "plugins" / ".airflowignore").read_text().splitlines()
    assert "*/" in ignored
    modules = [path.stem for path in (TREE / "plugins").rglob("*.py") if "__pycache__" not in path.parts]
    assert modules == ["k2_plugin"]
