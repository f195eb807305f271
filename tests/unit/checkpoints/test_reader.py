"""The checkpoint reader against checkpoints as Spark writes them, and against damaged ones."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.checkpoints import reader
from k2.checkpoints.reader import CheckpointUnreadable, first_commit_after, read_offsets, read_tail
from k2.registry.observed import Checkpoint

QUERY = "3f0cbd8a-1c5f-4a39-b8a7-1c1a1f4c1d11"
META = '{"batchWatermarkMs":0,"batchTimestampMs":1700000000000,"conf":{"spark.sql.shuffle.partitions":"2"}}'
T0 = 1_700_000_000


def kafka(offset: int) -> str:
    return f'{{"market.crypto.trades.binance.raw":{{"0":{offset},"1":{offset + 1}}}}}'


def write(folder: Path, batches: int, *, committed: int | None = None, source=kafka, metadata: str | None = f'{{"id":"{QUERY}"}}') -> Path:
    for name in ("offsets", "commits", "sources/0", "state"):
        (folder / name).mkdir(parents=True)
    if metadata is not None:
        (folder / "metadata").write_text(metadata)
    for batch in range(batches):
        (folder / "offsets" / str(batch)).write_text(f"v1\n{META}\n{source(batch)}")
        (folder / "offsets" / f".{batch}.crc").write_bytes(b"crc")
        os.utime(folder / "offsets" / str(batch), (T0 + batch - 1, T0 + batch - 1))
        if batch < (batches if committed is None else committed):
            (folder / "commits" / str(batch)).write_text('v1\n{"nextBatchWatermarkMs":0}')
            (folder / "commits" / f".{batch}.crc").write_bytes(b"crc")
            os.utime(folder / "commits" / str(batch), (T0 + batch, T0 + batch))
    return folder


def test_tail_of_a_kafka_query(tmp_path: Path) -> None:
    """Numbers are compared as numbers, and the committed position is the one of the last committed batch."""
    found = read_tail(write(tmp_path, 12, committed=11))
    assert found == Checkpoint(
        query_id=QUERY,
        last_offset_batch=11,
        last_commit_batch=10,
        last_commit_at=datetime.fromtimestamp(T0 + 10, UTC),
        committed={"market.crypto.trades.binance.raw": {"0": 10, "1": 11}},
        last_offset_at=datetime.fromtimestamp(T0 + 10, UTC),
    )
    assert found.in_flight


def test_tail_of_an_iceberg_query(tmp_path: Path) -> None:
    """An Iceberg source line is given as it stands; snapshot ids keep all their digits."""
    found = read_tail(write(tmp_path, 1, source=lambda _: '{"version":1,"snapshot_id":8744736658442914487,"position":2,"scan_all_files":false}'))
    assert found.committed == {"version": 1, "snapshot_id": 8744736658442914487, "position": 2, "scan_all_files": False}


def test_never_started(tmp_path: Path) -> None:
    """An absent folder is a query that never started, and so is an empty one."""
    nothing = Checkpoint(None, None, None, None, None)
    assert read_tail(tmp_path / "absent") == nothing
    assert read_tail(tmp_path) == nothing


def test_planned_but_not_committed(tmp_path: Path) -> None:
    """A first batch that is under way leaves the committed position unknown."""
    found = read_tail(write(tmp_path, 1, committed=0))
    assert (found.last_offset_batch, found.last_commit_batch, found.last_commit_at, found.committed) == (0, None, None, None)


def test_strays_are_no_batches(tmp_path: Path) -> None:
    """Hidden files, temporary files, checksums and folders of another name change nothing."""
    before = read_tail(write(tmp_path, 3))
    for name in (".99.crc", ".7.0d9c1b1e-aaaa.tmp", "99.tmp", "notes.txt", "٣", "-5", "1e3"):
        (tmp_path / "offsets" / name).write_text("x")
        (tmp_path / "commits" / name).write_text("x")
    assert read_tail(tmp_path) == before


def test_lost_metadata_is_not_hidden(tmp_path: Path) -> None:
    """Batches without an identity are told as they are."""
    found = read_tail(write(tmp_path, 2, metadata=None))
    assert (found.query_id, found.last_commit_batch) == (None, 1)


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("metadata", "", "metadata is ''"),
        ("metadata", '{"ident":"x"}', "metadata is"),
        ("metadata", '{"id":7}', "names the query 7"),
        ("metadata", "[]", "metadata is '[]'"),
        ("offsets/1", f"v2\n{META}\n{{}}", "offsets/1 is of log version 'v2': this reader knows 'v1' only"),
        ("offsets/1", "", "log version ''"),
        ("offsets/1", f"v1\n{META}", "has 1 lines below its version"),
        ("offsets/1", f"v1\n{META}\nnonsense", "source 0 is 'nonsense', not JSON"),
        ("offsets/1", f"v1\n{META}\n7", "source 0 is '7', not an object"),
        ("offsets/1", f"v1\n{META}\n{{}}\n{{}}", "names 2 sources"),
        ("commits/1", "v3\n{}", "commits/1 is of log version 'v3'"),
    ],
)
def test_damage_is_named(tmp_path: Path, path: str, text: str, reason: str) -> None:
    """What cannot be understood is refused with the file and the reason."""
    write(tmp_path, 2)
    (tmp_path / path).write_text(text)
    with pytest.raises(CheckpointUnreadable) as refused:
        read_tail(tmp_path)
    assert reason in refused.value.reason
    assert str(tmp_path) in str(refused.value)


def test_binary_damage_is_named(tmp_path: Path) -> None:
    """A file of zeros, as a power cut leaves it, is no offset."""
    write(tmp_path, 2)
    (tmp_path / "offsets" / "1").write_bytes(b"\xff" * 40)
    with pytest.raises(CheckpointUnreadable, match="offsets/1 is not text"):
        read_tail(tmp_path)


def test_a_folder_that_may_not_be_read_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that the system refuses is not an empty checkpoint."""
    write(tmp_path, 1)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reader.os, "listdir", refuse)
    with pytest.raises(CheckpointUnreadable, match="Permission denied"):
        read_tail(tmp_path)
    with pytest.raises(CheckpointUnreadable, match="Permission denied"):
        first_commit_after(tmp_path, datetime.fromtimestamp(0, UTC))


def test_a_batch_that_appears_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Spark writes between the two listings, no commit is shown without its plan."""
    write(tmp_path, 2)
    listed = reader._batches

    def batches(folder: Path) -> list[int]:
        found = listed(folder)
        (tmp_path / "offsets" / "2").write_text(f"v1\n{META}\n{kafka(2)}")
        (tmp_path / "commits" / "2").write_text("v1\n{}")
        return found

    monkeypatch.setattr(reader, "_batches", batches)
    found = read_tail(tmp_path)
    assert (found.last_offset_batch, found.last_commit_batch) == (2, 1)


def test_a_purge_while_reading_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listed file that is gone leads to another listing, and to a clear refusal when that never ends."""
    write(tmp_path, 5)
    listed, stale = reader._batches, [[0, 1], [0, 1]]
    monkeypatch.setattr(reader, "_batches", lambda folder: stale.pop() if stale else listed(folder))
    (tmp_path / "offsets" / "1").unlink()
    assert read_tail(tmp_path).last_commit_batch == 4
    (tmp_path / "offsets" / "4").unlink()
    with pytest.raises(CheckpointUnreadable, match="its files changed during each of 3 readings"):
        read_tail(tmp_path)


def test_offsets_of_one_batch(tmp_path: Path) -> None:
    """One entry per source, None for a source without data; an absent batch is refused."""
    write(tmp_path, 1, source=lambda _: f"{kafka(3)}\n-")
    assert read_offsets(tmp_path, 0) == [{"market.crypto.trades.binance.raw": {"0": 3, "1": 4}}, None]
    with pytest.raises(CheckpointUnreadable, match="offsets/7 does not exist"):
        read_offsets(tmp_path, 7)


def test_first_commit_after(tmp_path: Path) -> None:
    """The earliest commit after the moment, to the file system's precision; none when all are older."""
    write(tmp_path, 12)

    def at(seconds: float) -> datetime:
        return datetime.fromtimestamp(T0 + seconds, UTC)

    assert first_commit_after(tmp_path, at(8.5)) == (9, at(9))
    assert first_commit_after(tmp_path, at(9)) == (10, at(10))
    assert first_commit_after(tmp_path, at(-1)) == (0, at(0))
    assert first_commit_after(tmp_path, at(11)) is None
    assert first_commit_after(tmp_path, at(-1), 8) == (9, at(9)), "not those from before it, whatever the clock was"
    assert first_commit_after(tmp_path, at(-1), 11) is None
    assert first_commit_after(tmp_path / "absent", at(0)) is None


@given(st.binary(max_size=200), st.sampled_from(["metadata", "offsets/1", "commits/1"]))
def test_no_content_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    """Any bytes in any file end in an answer or in CheckpointUnreadable."""
    folder = write(tmp_path_factory.mktemp("checkpoint"), 2)
    (folder / name).write_bytes(content)
    try:
        assert isinstance(read_tail(folder), Checkpoint)
    except CheckpointUnreadable as refused:
        assert refused.reason
