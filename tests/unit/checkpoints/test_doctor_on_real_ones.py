"""The doctor on checkpoints that Spark wrote, whole and damaged."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2.checkpoints.doctor import Finding, Health, Surroundings
from k2.checkpoints.examine import examine
from k2.checkpoints.scan import scan

from ...fixtures.checkpoints.load import index, kinds, unpack

NOT_BY_NAME = {"two_sources": ("rate_micro_batch", "no data yet"), "idle": ()}
"""What the offsets tell of sources, where that is not the name under which Spark knows them."""
EXPECTED = {"state_rocksdb_v2": Health.UNKNOWN}
"""All others are healthy on the day when they were written."""


def look(path: Path, *, days: float = 0) -> tuple[Health, tuple[Finding, ...]]:
    """So long after its newest file was written."""
    at = datetime.fromtimestamp(scan(path).changed, UTC) + timedelta(seconds=1, days=days)
    found = examine(path, Surroundings(alone=True), at)
    return found.health, found.findings


@pytest.mark.parametrize("kind", kinds())
def test_what_spark_wrote_is_known(tmp_path: Path, kind: str) -> None:
    """Identity, sources and batches of every kind of query are read; nothing is called damaged or strange."""
    path, said = unpack(kind, tmp_path), index()[kind]
    found = examine(path, Surroundings(alone=True), datetime.fromtimestamp(scan(path).changed + 1, UTC))
    assert (found.query_id, found.planned, found.committed) == (said["query_id"], said["last_planned"], said["last_committed"])
    assert found.sources == NOT_BY_NAME.get(kind, tuple(said["sources"]))
    assert found.health is EXPECTED.get(kind, Health.HEALTHY), found.findings


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind.startswith("killed")])
def test_a_day_later_only_leftovers_of_a_kill_are_told(tmp_path: Path, kind: str) -> None:
    """A kill in the middle of a batch damages nothing; what it left may go."""
    health, findings = look(unpack(kind, tmp_path), days=2)
    assert health in (Health.HEALTHY, Health.GROWING)
    assert ("crashed writes" in findings[0].evidence) if findings else kind != "killed_leftover"


def test_a_sinks_own_log(tmp_path: Path) -> None:
    """It lies beside the checkpoint, in the output; without its newest compact file readers fail."""
    output = unpack("files", tmp_path).with_name("output")
    assert scan(output).sink is not None and not [f for f in look(output)[1] if f.health is Health.DAMAGED]
    newest = max((output / "_spark_metadata").glob("*.compact"), key=lambda file: int(file.stem))
    newest.unlink()
    assert look(output)[0] is Health.DAMAGED


@pytest.mark.parametrize(
    ("kind", "gone", "evidence"),
    [
        ("kafka", "metadata", "metadata is missing"),
        ("kafka", "offsets/{last}", "the last commit is 4, the last plan 3"),
        ("kafka", "offsets/{before}", "offsets/3 is not"),
        ("kafka", "sources/0/0", "where source 0 began is gone"),
        ("iceberg", "sources/0/offsets/0", "where source 0 began is gone"),
        ("files", "sources/0/29.compact", "batch 29 is missing"),
        ("files", "sources/0/19.compact", "not at even distances"),
        ("state_join", "state/0/0/left-keyToNumValues/{version}.delta", "state/0/0/left-keyToNumValues: version 4 needs version 4"),
        ("state_rocksdb", "state/0/0/{version}.zip", "state/0/0: version 6 needs version 6"),
    ],
)
def test_one_file_less(tmp_path: Path, kind: str, gone: str, evidence: str) -> None:
    """What a start needs is missed, by its name."""
    path, last = unpack(kind, tmp_path), index()[kind]["last_planned"]
    file = path / gone.format(last=last, before=last - 1, version=last + 1)
    file.unlink()
    assert any(evidence in finding.evidence for finding in look(path)[1])


@pytest.mark.parametrize("folder", ["offsets", "commits"])
def test_a_whole_log_less(tmp_path: Path, folder: str) -> None:
    """Batches would begin at 0 again, or be repeated."""
    path = unpack("kafka", tmp_path)
    shutil.rmtree(path / folder)
    assert look(path)[0] is Health.DAMAGED
