"""Positions of the readers of a table, and paths of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k2.checkpoints.reader import CheckpointUnreadable
from k2.maintenance import read
from k2.registry.observed import Checkpoint
from k2.registry.platform import load_platform


class FakeRuntime:
    platform = load_platform()

    def checkpoint(self, stream: str) -> Path:
        return Path("/nowhere") / stream


def floors(monkeypatch: pytest.MonkeyPatch, committed: dict[str, Any] | None | Exception) -> list[Any]:
    def tail(path: Path) -> Checkpoint:
        if isinstance(committed, Exception):
            raise committed
        return Checkpoint("q", 3, 3, None, committed)

    monkeypatch.setattr(read, "read_tail", tail)
    return read.reader_floors(FakeRuntime(), "bronze_binance_trades")  # type: ignore[arg-type]


def test_floor_is_the_committed_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one stream that reads the table stands on the snapshot that its checkpoint has committed."""
    assert [(f.holder, f.snapshot) for f in floors(monkeypatch, {"snapshot_id": 42, "position": 7})] == [("silver_binance", 42)]


@pytest.mark.parametrize("committed", [None, {}, {"snapshot_id": -1}, {"snapshot_id": "42"}, CheckpointUnreadable(Path("x"), "its log is version v2")])
def test_anything_else_is_unknown(monkeypatch: pytest.MonkeyPatch, committed: Any) -> None:
    """A reader without a readable position holds everything."""
    (floor,) = floors(monkeypatch, committed)
    assert floor.snapshot is None and floor.why_unknown


@pytest.mark.parametrize("location", ["file:/w/db/t", "file:///w/db/t", "/w/db/t"])
def test_one_path_for_every_spelling(location: str) -> None:
    """Hadoop and Iceberg spell a local path in three ways."""
    assert read._local(location) == Path("/w/db/t")


def test_other_stores_are_not_listed() -> None:
    """A bucket is no folder."""
    assert read._local("s3://warehouse/db/t") is None


@pytest.mark.parametrize(("path", "main"), [("/t/.a.parquet.crc", "/t/a.parquet"), ("/t/a.parquet", "/t/a.parquet"), ("/t/.hidden", "/t/.hidden")])
def test_checksum_belongs_to_its_file(path: str, main: str) -> None:
    """A .crc file is an orphan only when its file is one."""
    assert read._main_file(path) == main
