"""`./k2 checkpoints doctor PATH`: what it prints, what it refuses, and with what it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2.stack.cli import main

from ...fixtures.checkpoints.load import unpack


def test_a_healthy_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Needs no platform; says what it is and that it is well."""
    assert main(["checkpoints", "doctor", str(unpack("kafka", tmp_path))]) == 0
    said = capsys.readouterr().out
    assert "checkpoint is healthy" in said and "source kafka" in said and "planned 4, committed 4" in said


def test_a_damaged_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each finding has its evidence, what follows, and what to do; as JSON too."""
    path = unpack("kafka", tmp_path)
    (path / "metadata").unlink()
    assert main(["checkpoints", "doctor", str(path)]) == 1
    said = capsys.readouterr().out
    assert "damaged: metadata is missing" in said and "what follows: the next start mints" in said and "what to do: do not start it" in said
    assert main(["checkpoints", "doctor", str(path), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["health"] == "damaged" and found["findings"][0]["consequence"]


def test_one_that_cannot_be_known(tmp_path: Path) -> None:
    """It is neither well nor damaged."""
    assert main(["checkpoints", "doctor", str(unpack("state_rocksdb_v2", tmp_path))]) == 3


@pytest.mark.parametrize("make", ["file", "nothing", "link"])
def test_what_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], make: str) -> None:
    """The message names the path and what to name instead."""
    path = tmp_path / make
    if make == "file":
        path.write_text("x")
    if make == "link":
        path.symlink_to(tmp_path)
    assert main(["checkpoints", "doctor", str(path)]) == 2
    said = capsys.readouterr().err
    assert str(path) in said and "name the folder" in said


def test_without_a_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A stream has a checkpoint only where a platform was started."""
    monkeypatch.setenv("K2_HOME", str(tmp_path / "home"))
    assert main(["checkpoints", "doctor", "bronze_binance"]) == 2
    assert "start it with ./k2 up" in capsys.readouterr().err
