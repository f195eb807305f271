"""What is said of checkpoints: healthy, damaged, claimed by nobody."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2.checkpoints.examine import Examination, could_go, examine_all
from k2.checkpoints.report import markdown, size

QUERY = "0c1b7cf6-6e0f-4f6c-9a3e-3d5f2c1b0a99"
LEFTOVER = ".5.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.tmp"
NOW = datetime.now(UTC)


def make(root: Path, *, offsets: range = range(6), commits: range = range(6), metadata: str | None = json.dumps({"id": QUERY})) -> Path:
    """A checkpoint like Spark's, an hour old, with the given batches."""
    for log, batches in (("offsets", offsets), ("commits", commits)):
        (root / log).mkdir(parents=True)
        for batch in batches:
            (root / log / str(batch)).write_text("v1\n{}\n{}")
            (root / log / f".{batch}.crc").write_text("crc")
    (root / "sources" / "0").mkdir(parents=True)
    (root / "sources" / "0" / "0").write_text("v1\n{}")
    if metadata is not None:
        (root / "metadata").write_text(metadata)
    for path in root.rglob("*"):
        touch(path, hours=1)
    return root


def touch(path: Path, *, hours: float) -> None:
    stamp = (NOW - timedelta(hours=hours)).timestamp()
    os.utime(path, (stamp, stamp))


def examine(root: Path) -> Examination:
    return examine_all(root.parent, {root.name: "bronze_binance"}, NOW)[0]


def test_healthy_checkpoint(tmp_path: Path) -> None:
    """Identity, batches and sizes are counted, and nothing is wrong or could go."""
    found = examine(make(tmp_path / "bronze-binance"))
    assert (found.query_id, found.batches, found.first_batch, found.last_planned, found.last_committed) == (QUERY, 6, 0, 5, 5)
    assert found.files == 26 and found.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert (found.anomalies, could_go(found)) == ([], [])


def test_batch_in_flight_is_healthy(tmp_path: Path) -> None:
    """The last plan may be one ahead of the last commit."""
    assert examine(make(tmp_path / "c", offsets=range(7))).anomalies == []


def test_first_batch_in_flight_is_healthy(tmp_path: Path) -> None:
    """A query that has just begun has a plan and no commit."""
    assert examine(make(tmp_path / "c", offsets=range(1), commits=range(0))).anomalies == []


def test_old_metadata_is_no_anomaly(tmp_path: Path) -> None:
    """It is written once: in every healthy stream it is the oldest file."""
    root = make(tmp_path / "c")
    touch(root / "metadata", hours=24 * 30)
    found = examine(root)
    assert (found.anomalies, could_go(found)) == ([], [])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metadata": None}, "metadata is missing though batches exist"),
        ({"metadata": "garbage"}, "not a query id"),
        ({"offsets": range(0), "commits": range(6)}, "without any offsets"),
        ({"offsets": range(6), "commits": range(3)}, "must be equal or neighbours"),
        ({"offsets": range(6), "commits": range(0)}, "without any commit"),
        ({"offsets": range(5, 6), "commits": range(4, 6)}, "offsets/4 is not"),
    ],
)
def test_damage_is_named(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    """Each kind of damage is said in words."""
    found = examine(make(tmp_path / "c", **changes))  # type: ignore[arg-type]
    assert any(expected in anomaly for anomaly in found.anomalies), found.anomalies


def test_reminted_identity_is_named(tmp_path: Path) -> None:
    """A metadata that is younger than the oldest plan was lost and written anew."""
    root = make(tmp_path / "c")
    touch(root / "metadata", hours=0)
    assert "minted anew" in examine(root).anomalies[0]


@pytest.mark.parametrize(("name", "said"), [("offsets/notes.txt", "no file of Spark's"), ("commits/.9.crc", "checksum of a file that is gone")])
def test_strays_are_named(tmp_path: Path, name: str, said: str) -> None:
    """What Spark did not write, or left without its file, is reported."""
    root = make(tmp_path / "c")
    (root / name).write_text("x")
    assert said in examine(root).anomalies[0]


@pytest.mark.parametrize(
    ("name", "hours", "counted"),
    [
        (f"offsets/{LEFTOVER}", 25, True),
        (f"offsets/{LEFTOVER}", 23, False),
        ("offsets/.5.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.TID12.tmp", 25, True),
        ("offsets/5.tmp", 25, False),
        ("metadata.tmp", 25, False),
    ],
)
def test_only_old_leftovers_of_spark_could_go(tmp_path: Path, name: str, hours: float, counted: bool) -> None:
    """The name must be Spark's own and the file a day old."""
    root = make(tmp_path / "c")
    (root / name).write_text("half")
    touch(root / name, hours=hours)
    found = examine(root)
    assert (found.leftovers == [name]) == counted
    assert bool(could_go(found)) == counted


def test_claimed_but_never_started(tmp_path: Path) -> None:
    """A declared stream without a folder is listed, and so is a root that does not exist at all."""
    (found,) = examine_all(tmp_path / "nothing", {"bronze-binance": "bronze_binance"}, NOW)
    assert (found.exists, found.anomalies, could_go(found)) == (False, [], [])


def test_unclaimed_folder_needs_a_person(tmp_path: Path) -> None:
    """That nobody claims a folder is reported, and is no proof that it may go."""
    make(tmp_path / "old-query")
    (found,) = examine_all(tmp_path, {}, NOW)
    assert found.stream is None and "once a person registers" in could_go(found)[0]


def test_report_names_everything(tmp_path: Path) -> None:
    """The table has a row per checkpoint, and both lists say 'nothing' when empty."""
    make(tmp_path / "bronze-binance")
    make(tmp_path / "stray", metadata=None)
    text = markdown(examine_all(tmp_path, {"bronze-binance": "bronze_binance", "silver-binance": "silver_binance"}, NOW))
    assert "| bronze-binance | bronze_binance | " + QUERY in text
    assert "| silver-binance | silver_binance |" in text and "never started" in text
    assert "**stray**: metadata is missing" in text and "nothing was changed" in text
    assert markdown([]).endswith("**Could go:** nothing.")


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**3, "5.0 GiB"), (3 * 1024**4, "3.0 TiB")])
def test_size(count: int, words: str) -> None:
    """Bytes as a person reads them."""
    assert size(count) == words
