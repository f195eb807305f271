"""The k2 script, with stand-ins for Python, pip and uv: nothing is downloaded."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from k2.stack.home import TREE

# Answers what the script asks of a Python: its version, `-m venv`, `-m pip install uv`, the self-test of the environment.
PYTHON = """#!/bin/sh
case "$*" in
  *"import sys, venv"*) echo 3.12 ;;
  *"-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *"-m pip install"*) cp "$STANDIN/uv" "$(dirname "$0")/uv" ;;
  *"import pyspark"*) exit "${SELF_TEST:-0}" ;;
  *k2.stack.cli*) echo "cli $PYTHONPATH $*" ;;
esac
"""
# `uv venv` makes the folder, `uv pip install` takes a while and counts itself.
UV = """#!/bin/sh
case "$1 $2" in
  venv*) for last; do :; done; mkdir -p "$last/bin"; cp "$STANDIN/python" "$last/bin/python" ;;
  "pip install") echo "installed" >> "$STANDIN/installs"; sleep 0.3; exit "${INSTALL:-0}" ;;
esac
"""


@pytest.fixture
def standin(tmp_path: Path) -> Path:
    folder = tmp_path / "standin"
    folder.mkdir()
    for name, text in (("python", PYTHON), ("uv", UV)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def start(standin: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(standin), "STANDIN": str(standin), "K2_CACHE": str(standin / "cache")}
    environment |= {"K2_PYTHON": str(standin / "python")} | settings
    return subprocess.Popen([TREE / "k2", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(standin: Path, *arguments: str, **settings: str) -> tuple[int, str, str]:
    process = start(standin, *arguments, **settings)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def environments(standin: Path) -> list[str]:
    return sorted(path.name for path in (standin / "cache").glob("env-*"))


def test_the_first_run_makes_the_environment_and_goes_on(standin: Path) -> None:
    """The arguments reach the command line untouched, which finds the library of this tree."""
    code, out, err = run(standin, "logs", "a b")
    assert code == 0, err
    assert out == f"cli {TREE}/include -P -m k2.stack.cli logs a b\n"
    assert [name for name in environments(standin) if name.endswith("-py3.12")] != []
    assert not [name for name in environments(standin) if name.endswith(".partial")]


def test_a_later_run_starts_at_once(standin: Path) -> None:
    """Nothing is installed again, no Python is searched, and a tenth of a second is plenty."""
    run(standin)
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        code, out, _ = run(standin, "status", K2_PYTHON="")
        seconds.append(time.monotonic() - began)
        assert (code, out.split()[-1]) == (0, "status")
    assert (standin / "installs").read_text().count("installed") == 1
    assert min(seconds) < 0.1


def test_two_first_runs_do_not_collide(standin: Path) -> None:
    """One makes the environment, the other waits for it; both go on."""
    both = [start(standin, "config") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.endswith("config\n")
    assert (standin / "installs").read_text().count("installed") == 1


@pytest.mark.parametrize(("settings", "message"), [({"INSTALL": "1"}, "could not be installed"), ({"SELF_TEST": "1"}, "does not work")])
def test_a_broken_environment_is_never_used(standin: Path, settings: dict[str, str], message: str) -> None:
    """A failed install or self-test ends with one sentence; the next run makes it from the beginning."""
    code, out, err = run(standin, "config", **settings)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert [name for name in environments(standin) if not name.endswith(".partial")] == []
    assert run(standin, "config")[0] == 0


def test_a_python_that_does_not_fit_is_one_sentence(standin: Path) -> None:
    """It names what is needed, what was given, and what to type."""
    code, _, err = run(standin, "up", K2_PYTHON="/bin/false")
    assert code == 2
    assert err.startswith("k2: Python 3.11, 3.12 or 3.13 with its venv module is needed and K2_PYTHON=/bin/false is none: ")
    assert len(err.splitlines()) == 1


def test_a_cache_that_cannot_be_written_is_one_sentence(standin: Path) -> None:
    """The setting to change is in it."""
    (standin / "file").touch()
    code, _, err = run(standin, "up", K2_CACHE=str(standin / "file" / "cache"))
    assert code == 2
    assert "cannot be written: set K2_CACHE" in err


def test_no_network_is_used_offline(standin: Path) -> None:
    """uv is told to stay offline and where the wheels are."""
    (standin / "uv").write_text(UV.replace("sleep 0.3", 'echo "$*" > "$STANDIN/said"'))
    assert run(standin, "config", K2_OFFLINE="/media/k2")[0] == 0
    said = (standin / "said").read_text()
    assert "--offline --no-index --find-links /media/k2/wheels" in said
    assert "--require-hashes" in said


def test_another_package_index_is_used(standin: Path) -> None:
    """K2_PYPI_INDEX reaches uv as its default index."""
    (standin / "uv").write_text(UV.replace("sleep 0.3", 'echo "$*" > "$STANDIN/said"'))
    assert run(standin, "config", K2_PYPI_INDEX="http://127.0.0.1:1/simple")[0] == 0
    assert "--default-index http://127.0.0.1:1/simple" in (standin / "said").read_text()
