"""What Bronze holds and what Silver reads of it, from tables that pyiceberg wrote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog

from k2.probes.rebuilding import Appended, File, Held, Source, Spans, read_bronze
from k2.registry.history import NO_SNAPSHOT, Piece

from ...tables import DAY, SCHEMA, TOPIC, Written, kafka_timestamp, run

MERGED = {"commit.manifest-merge.enabled": "true", "commit.manifest.min-count-to-merge": "2"}


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path)
    yield made
    made.close()


def held(*spans: tuple[int, int], doubled: tuple[tuple[int, int], ...] = ()) -> Held:
    return Held(spans, doubled, frozenset({TOPIC}), kafka_timestamp(spans[-1][1] - 1))


def test_files_of_one_partition_are_known_by_their_bounds(written: Written) -> None:
    """No column is read of them; those that touch are one span, whatever the order of the commits."""
    written.append(run(0, 0, 5), run(1, 100, 101))
    written.append(run(10, 7, 9), run(0, 5, 300))
    found = written.bronze()
    assert found.partitions == {"0": held((0, 300)), "1": held((100, 101)), "10": held((7, 9))}
    assert (found.files, found.opened, found.since) == (4, 0, None)


def test_a_compacted_table_is_read_by_its_columns(written: Written) -> None:
    """One file of three partitions says what the many said before; a gap stays a gap, and what was there twice is."""
    written.append(run(0, 0, 70_000), run(1, 3, 6))
    written.append(run(0, 70_002, 70_005), run(1, 5, 8), run(2, 0, 1))
    before = written.bronze()
    written.compact()
    found = written.bronze()
    assert found.partitions == before.partitions
    assert found.partitions == {"0": held((0, 70_000), (70_002, 70_005)), "1": held((3, 8), doubled=((5, 6),)), "2": held((0, 1))}
    assert (before.opened, found.files, found.opened) == (0, 1, 1)


@pytest.mark.parametrize(("rows", "expected"), [([0, 1, 5], held((0, 2), (5, 6))), ([0, 1, 1, 2], held((0, 3), doubled=((1, 2),)))])
def test_a_file_with_other_rows_than_offsets_is_opened(written: Written, rows: list[int], expected: Held) -> None:
    """Its bounds alone would hide a gap in it, or a record that is there twice."""
    written.append([(0, offset) for offset in rows])
    found = written.bronze()
    assert (found.partitions, found.opened) == ({"0": expected}, 1)


def test_bounds_are_believed_of_what_a_stream_has_appended(written: Written) -> None:
    """Who sorts and thins out can leave a row twice and another missing, within the same bounds and with as many rows."""
    written.append(run(0, 0, 6))
    written.append([(1, 0), (1, 1), (1, 1), (1, 3)], run(2, 0, 3), streamed=False)
    found = written.bronze()
    assert found.partitions == {"0": held((0, 6)), "1": held((0, 2), (3, 4), doubled=((1, 2),)), "2": held((0, 3))}
    assert (found.files, found.opened) == (3, 2)


def test_a_compacted_file_of_one_partition_is_opened(written: Written) -> None:
    """A snapshot that replaces files is none that a stream appended, whatever it says of a query."""
    written.append(run(0, 0, 5))
    written.append(run(0, 5, 9))
    written.compact()
    told = json.loads(Path(written.location.removeprefix("file://")).read_text())
    for snapshot in told["snapshots"]:
        snapshot["summary"]["spark.sql.streaming.queryId"] = "q"
    (written.folder / "all.json").write_text(json.dumps(told))
    found = read_bronze((written.folder / "all.json").as_uri(), [])
    assert (found.partitions, found.opened) == ({"0": held((0, 9))}, 1)


def test_an_entry_without_a_snapshot_is_of_its_manifest(written: Written) -> None:
    """Iceberg leaves it out where both are the same."""
    written.append(run(0, 0, 5))
    for manifest in written.table.current_snapshot().manifests(written.table.io):
        rewrite(Path(manifest.manifest_path.removeprefix("file://")), snapshot_id=None)
    assert written.bronze().opened == 0


def test_a_merged_manifest_does_not_make_files_the_streams(tmp_path: Path) -> None:
    """Each entry keeps the snapshot that added it."""
    written = Written(tmp_path, **MERGED)
    written.append([(0, 0), (0, 1), (0, 1), (0, 3)], streamed=False)
    written.append(run(1, 0, 3))
    assert len(written.table.current_snapshot().manifests(written.table.io)) == 1
    found = written.bronze()
    assert (found.partitions["0"], found.opened) == (held((0, 2), (3, 4), doubled=((1, 2),)), 1)
    written.close()


def rewrite(avro: Path, **changes: Any) -> None:
    """Change each entry of a manifest, or of a list of them."""
    with avro.open("rb") as file:
        reader = fastavro.reader(file)
        schema, entries = reader.writer_schema, [{**entry, **changes} for entry in reader]
    with avro.open("wb") as file:
        fastavro.writer(file, schema, entries)


def test_a_file_whose_snapshot_has_expired_is_opened(written: Written) -> None:
    """Nothing says any more who wrote it; a manifest that was written anew does not make it another's."""
    first = written.append(run(0, 0, 5))
    written.append(run(0, 5, 9))
    assert written.bronze().opened == 0
    written.table.maintenance.expire_snapshots().by_id(first).commit()
    assert (written.bronze().partitions, written.bronze().opened) == ({"0": held((0, 9))}, 1)


@pytest.mark.parametrize("column", ["partition", "offset", "kafka_timestamp"])
def test_rows_without_a_place_are_refused(written: Written, column: str) -> None:
    """Which records they are nobody can say."""
    written.append(run(0, 0, 3), streamed=False)
    loose = pa.schema([field.with_nullable(True) for field in SCHEMA])
    rows = pq.read_table(written.folder / "0.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist([*rows[:2], {**rows[2], column: None}], schema=loose), written.folder / "0.parquet")
    with pytest.raises(ValueError, match=f"0.parquet has rows without {column}: which records"):
        written.bronze()


def test_the_last_record_is_known_by_its_time(written: Written) -> None:
    """Of each partition, also where one file holds several, and the last row of it is another one."""
    written.append([(0, 8), (1, 3), (0, 7), (1, 2)], run(1, 0, 2))
    assert {p: (h.last, h.last_at) for p, h in written.bronze().partitions.items()} == {"0": (8, kafka_timestamp(8)), "1": (3, kafka_timestamp(3))}


def test_the_topic_is_that_of_the_last_record(written: Written) -> None:
    """Bounds cut long names off, so it is read."""
    written.append(run(0, 0, 5), run(1, 0, 9), topic="market.crypto.trades.y.raw")
    written.append(run(0, 5, 6))
    assert {p: h.topics for p, h in written.bronze().partitions.items()} == {"0": {TOPIC}, "1": {"market.crypto.trades.y.raw"}}


def test_earlier_days_are_passed_over(written: Written) -> None:
    """Their manifests are not opened, unless a partition of the topic has no row since."""
    written.append(run(0, 0, 5), run(1, 0, 5))
    manifest = Path(written.table.current_snapshot().manifests(written.table.io)[0].manifest_path.removeprefix("file://"))
    written.append(run(0, 5, 9), day=DAY + timedelta(days=1))
    tomorrow = DAY + timedelta(days=1)
    assert written.bronze("0", "1", since=tomorrow) == written.bronze()
    content = manifest.read_bytes()
    manifest.unlink()
    found = written.bronze("0", since=tomorrow)
    assert (found.partitions, found.since) == ({"0": held((5, 9))}, tomorrow)
    with pytest.raises(FileNotFoundError):
        written.bronze("0", "1", since=tomorrow)
    manifest.write_bytes(content)
    assert written.bronze("0", since=DAY).since is None, "nothing was passed over"


def test_row_level_deletes_are_refused(written: Written) -> None:
    """Which rows a file still has, its bounds and its columns do not say."""
    written.append(run(0, 0, 5))
    rewrite(Path(written.table.current_snapshot().manifest_list.removeprefix("file://")), content=1)
    with pytest.raises(ValueError, match="deletes single rows"):
        written.bronze()


def test_another_table_is_refused(tmp_path: Path) -> None:
    """Silver has no columns of these names, and must not be taken for an empty Bronze."""
    catalog = SqlCatalog("k2", uri="sqlite://", warehouse=tmp_path.as_uri())
    catalog.create_namespace("n")
    table = catalog.create_table("n.silver", pa.schema([pa.field("kafka_offset", pa.int64())]))
    table.append(pa.table({"kafka_offset": [1]}))
    with pytest.raises(ValueError, match="no Bronze table"):
        read_bronze(table.metadata_location, [])
    catalog.engine.dispose()


def test_an_empty_table_holds_nothing(written: Written) -> None:
    """Before the first commit there is no snapshot to read."""
    assert written.bronze("0").partitions == {}
    assert written.source(NO_SNAPSHOT, 0) == Source((), whole=True)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=12))
def test_spans_are_what_was_put_in(put: list[tuple[int, int]]) -> None:
    """In any order: each offset once in the spans, and told as often as it was there before."""
    spans, told = Spans(), Counter[int]()
    for first, count in put:
        for begin, end in spans.add(first, first + count):
            told.update(range(begin, end))
    times = Counter(offset for first, count in put for offset in range(first, first + count))
    found = spans.all()
    assert [o for begin, end in found for o in range(begin, end)] == sorted(times)
    assert all(before[1] < after[0] for before, after in zip(found, found[1:], strict=False))
    assert told == Counter({o: n - 1 for o, n in times.items() if n > 1})


def one(partition: int, first: int, end: int) -> File:
    return File(end - first, (Piece(str(partition), first, end, end - first),))


def test_the_source_is_read_back_as_far_as_it_takes(written: Written) -> None:
    """As many snapshots as hold the rows before the newest, further back on demand, and files in the order of the commit."""
    ids = [written.append(run(1, n * 10, n * 10 + 10), run(0, n * 10, n * 10 + 10)) for n in range(4)]
    everything = tuple(Appended(ids[n], (one(1, n * 10, n * 10 + 10), one(0, n * 10, n * 10 + 10))) for n in range(4))
    assert written.source(ids[3], 20) == Source(everything[2:], whole=False)
    assert written.source(ids[2], 21) == Source(everything[:3], whole=True)
    assert written.source(ids[3], 1, back_to=ids[1]) == Source(everything[1:], whole=False)
    assert written.source(ids[3], 1, back_to=ids[0]) == Source(everything, whole=True)
    assert written.source(4711, 1) == Source((), whole=False)


def test_what_was_compacted_is_passed_over(written: Written) -> None:
    """Silver's source reads appends alone, from the manifests of their own snapshots."""
    first = written.append(run(0, 0, 3), [(0, 3), (1, 0), (0, 4), (1, 2)])
    written.compact()
    last = written.append(run(0, 5, 6))
    mixed = File(4, (Piece("0", 3, 5, 2), Piece("1", 0, 3, 2)))
    assert written.source(last, 99) == Source((Appended(first, (one(0, 0, 3), mixed)), Appended(last, (one(0, 5, 6),))), whole=True)


def test_an_expired_beginning_is_no_whole_source(written: Written) -> None:
    """What was read before cannot be told."""
    ids = [written.append(run(0, n, n + 1)) for n in range(3)]
    written.table.maintenance.expire_snapshots().by_id(ids[0]).commit()
    assert written.source(ids[2], 99, back_to=ids[0]) == Source(tuple(Appended(ids[n], (one(0, n, n + 1),)) for n in (1, 2)), whole=False)


def test_merged_manifests_are_refused(tmp_path: Path) -> None:
    """Iceberg counts the older files of such a manifest too, and a position in it would be another file here."""
    written = Written(tmp_path, **MERGED)
    ids = [written.append(run(0, n, n + 1)) for n in range(3)]
    with pytest.raises(ValueError, match="merged"):
        written.source(ids[2], 99)
    written.close()
