"""What Spark does when it is started on a checkpoint that lost something: real checkpoints, damaged, and real restarts.

These are the reasons of the pruner's rules and of what the doctor says. A new Spark that does otherwise fails here.
"""

from __future__ import annotations

import re

import pytest
from py4j.protocol import Py4JJavaError

from session import number_tasks_from

from .breaking_lab import Lab, names, remove, wait

STATEFUL = ("state_hdfs", "state_rocksdb", "state_rocksdb_changelog", "state_rocksdb_v2")

pytestmark = pytest.mark.full

# Identity, plans and commits


def test_a_healthy_checkpoint_goes_on(lab: Lab) -> None:
    """What all other tests differ from: the same query, the next batch, each row once."""
    checkpoint = lab.checkpoint("rate_micro_batch")
    before = lab.query_id(checkpoint)
    ran = lab.run(lab.numbers(), checkpoint)
    assert (ran.query_id, ran.batches, ran.values, ran.error) == (before, [4], [12, 13, 14], "")


def test_a_lost_identity_is_replaced_without_a_word(lab: Lab) -> None:
    """Another query id, and the batches go on as if nothing had happened."""
    checkpoint = lab.checkpoint("rate_micro_batch")
    before = lab.query_id(checkpoint)
    remove(checkpoint, "metadata")
    ran = lab.run(lab.numbers(), checkpoint)
    assert (ran.batches, ran.error) == ([4], "")
    assert ran.query_id == lab.query_id(checkpoint) != before


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_without_its_identity_a_sink_takes_a_replayed_batch_for_a_new_one(lab: Lab, lost: bool) -> None:
    """Iceberg's sink skips a batch that its table has from the same query; under a new id the batch is appended again."""
    checkpoint, table = lab.folder / "checkpoint", lab.table()
    for _ in range(4):
        lab.append(lab.numbers(), checkpoint, table)
    remove(checkpoint, "commits/3", *(["metadata"] if lost else []))  # killed between the table's commit and Spark's
    assert lab.append(lab.numbers(), checkpoint, table).error == ""
    assert lab.values(table)[:15] == ([*range(9), 9, 9, 10, 10, 11, 11] if lost else [*range(15)])


@pytest.mark.parametrize("removed", [("offsets/2",), ("offsets/0", "offsets/1", "offsets/2")], ids=["last but one", "all but the last"])
def test_the_plan_before_the_last_is_needed(lab: Lab, removed: tuple[str, ...]) -> None:
    checkpoint = lab.checkpoint("rate_micro_batch")
    remove(checkpoint, *removed)
    ran = lab.run(lab.numbers(), checkpoint)
    assert "batch 2 doesn't exist" in ran.error
    assert ran.batches == []


def test_without_the_last_plan_a_batch_is_written_again_before_spark_complains(lab: Lab) -> None:
    """The last commit then stands above the last plan: the batch before is given to the sink a second time."""
    checkpoint = lab.checkpoint("rate_micro_batch")
    remove(checkpoint, "offsets/3")
    ran = lab.run(lab.numbers(), checkpoint)
    assert (ran.batches, ran.values) == ([2], [6, 7, 8])
    assert "[CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log. Multiple streaming jobs detected for 2." in ran.error


def test_without_commits_the_last_batch_is_replayed(lab: Lab) -> None:
    checkpoint = lab.checkpoint("rate_micro_batch")
    remove(checkpoint, "commits")
    ran = lab.run(lab.numbers(), checkpoint)
    assert (ran.batches[0], ran.values[:3], ran.error) == (3, [9, 10, 11], ""), "9 to 11 were written before"


def test_a_checksum_without_its_commit_is_taken_for_another_query(lab: Lab) -> None:
    """The batch has been replayed when Spark finds that it cannot commit it."""
    checkpoint = lab.checkpoint("rate_micro_batch")
    remove(checkpoint, *[f"commits/{batch}" for batch in range(4)], checksum=False)
    ran = lab.run(lab.numbers(), checkpoint)
    assert (ran.batches, ran.values) == ([3], [9, 10, 11])
    assert f"Multiple streaming queries are concurrently using file:{checkpoint}/commits" in ran.error


def test_identity_two_plans_and_one_commit_are_enough(lab: Lab) -> None:
    checkpoint = lab.checkpoint("rate_micro_batch")
    remove(checkpoint, "offsets/0", "offsets/1", "commits/0", "commits/1", "commits/2")
    before = lab.query_id(checkpoint)
    ran = lab.run(lab.numbers(), checkpoint)
    assert (ran.query_id, ran.batches, ran.values, ran.error) == (before, [4], [12, 13, 14], "")


# Numbers that begin anew under the old identity


@pytest.mark.parametrize("sources", [True, False], ids=["sources kept", "sources lost too"])
def test_a_sink_skips_batches_that_are_numbered_anew(lab: Lab, sources: bool) -> None:
    """Silent loss: batch 0 is known to the table from this query, whatever is in it now."""
    checkpoint, table = lab.folder / "checkpoint", lab.table()
    lab.append(lab.files(0, 3), checkpoint, table)
    remove(checkpoint, "offsets", "commits", *([] if sources else ["sources"]))
    assert lab.append(lab.files(3, 5, per_batch=10), checkpoint, table).error == ""
    assert lab.values(table) == [0, 1, 2], "files 3 to 7 were read, and are gone"


@pytest.mark.parametrize("sources", [True, False], ids=["sources kept", "sources lost too"])
def test_the_sink_of_files_skips_them_too(lab: Lab, sources: bool) -> None:
    checkpoint, output = lab.folder / "checkpoint", lab.folder / "output"
    lab.write_files(lab.files(0, 3), checkpoint, output)
    remove(checkpoint, "offsets", "commits", *([] if sources else ["sources"]))
    assert lab.write_files(lab.files(3, 5, per_batch=10), checkpoint, output).error == ""
    assert lab.values_below(output) == [0, 1, 2]


def test_a_batch_that_is_numbered_anew_overwrites_live_data(lab: Lab) -> None:
    """Iceberg names a file by partition, task, query and batch: in a new process, whose tasks are numbered from 0, they all repeat."""
    checkpoint, table = lab.folder / "checkpoint", lab.table()
    number_tasks_from(lab.spark, 2)
    lab.append(lab.files(0, 1), checkpoint, table)
    (data,) = (lab.folder / "warehouse" / "db" / "numbers" / "data").glob("*.parquet")
    before = data.read_bytes()
    remove(checkpoint, "offsets", "commits", "sources")
    (lab.folder / "input" / "000.json").unlink()
    number_tasks_from(lab.spark, 2)
    assert lab.append(lab.files(1, 1), checkpoint, table).error == ""
    assert data.read_bytes() != before
    lab.spark.catalog.clearCache()
    assert lab.values(table) == [1], "0 was committed, and is gone"


# Logs of files


def test_a_source_of_files_needs_its_log(lab: Lab) -> None:
    checkpoint = lab.checkpoint_of_files()
    remove(checkpoint, "sources")
    assert "batch 31 doesn't exist" in lab.run(lab.files(32, 2), checkpoint).error


@pytest.mark.parametrize(("compact", "interval"), [(29, 10), (19, 20)], ids=["newest", "middle"])
def test_a_log_of_files_needs_its_newest_compacts(lab: Lab, compact: int, interval: int) -> None:
    """How often it was compacted is what the last two tell. Without the checkpoint all files are read again."""
    checkpoint = lab.checkpoint_of_files()
    remove(checkpoint, f"sources/0/{compact}.compact")
    ran = lab.run(lab.files(32, 2), checkpoint)
    assert f"{compact}.compact doesn't exist (latestId: 31, compactInterval: {interval})" in ran.error
    assert lab.run(lab.files(34, 0, per_batch=100), lab.folder / "new").values == [*range(34)]


@pytest.mark.parametrize("removed", ["9.compact", "9.compact and 19.compact", "everything before 29.compact"])
def test_a_log_of_files_does_not_need_what_is_older(lab: Lab, removed: str) -> None:
    checkpoint = lab.checkpoint_of_files()
    old = sorted(names(checkpoint / "sources" / "0") - {"29.compact", "30", "31"}) if removed.startswith("everything") else removed.split(" and ")
    remove(checkpoint, *[f"sources/0/{name}" for name in old])
    ran = lab.run(lab.files(32, 2), checkpoint)
    assert (ran.batches, ran.values, ran.error) == ([32, 33], [32, 33], "")


def test_a_running_query_dies_at_the_next_compaction(lab: Lab) -> None:
    lab.spark.conf.set("spark.sql.streaming.fileSource.log.compactInterval", "3")
    checkpoint = lab.folder / "checkpoint"
    with lab.running(lab.files(0, 4), checkpoint) as query:
        wait(lambda: (checkpoint / "commits" / "3").exists())
        remove(checkpoint, "sources/0/2.compact")
        lab.files(4, 2)
        wait(lambda: not query.isActive)
    assert "BATCH_METADATA_NOT_FOUND" in str(query.exception())
    assert (checkpoint / "commits" / "4").exists()


def test_without_its_newest_compact_a_folder_cannot_be_read_while_the_stream_goes_on(lab: Lab) -> None:
    """Until the stream's next compaction, at which it dies too."""
    lab.spark.conf.set("spark.sql.streaming.fileSink.log.compactInterval", "3")
    checkpoint, output = lab.folder / "checkpoint", lab.folder / "output"
    for _ in range(4):
        lab.write_files(lab.numbers(), checkpoint, output)
    assert lab.values_below(output) == [*range(12)]
    remove(output, "_spark_metadata/2.compact")
    assert lab.write_files(lab.numbers(), checkpoint, output).error == ""
    with pytest.raises(Py4JJavaError, match="2.compact doesn't exist"):
        lab.values_below(output)
    assert "2.compact" in lab.write_files(lab.numbers(), checkpoint, output).error


# State


def test_a_delta_since_the_last_snapshot_is_needed(lab: Lab) -> None:
    checkpoint = lab.checkpoint("available_now")
    remove(checkpoint, "state/0/0/5.delta")
    assert "[CANNOT_LOAD_STATE_STORE.CANNOT_READ_DELTA_FILE_NOT_EXISTS]" in lab.run(lab.counts(), checkpoint, "update").error


def test_state_that_is_gone_is_missed(lab: Lab) -> None:
    checkpoint = lab.checkpoint("available_now")
    remove(checkpoint, "state")
    assert "[CANNOT_LOAD_STATE_STORE." in lab.run(lab.counts(), checkpoint, "update").error


def test_spark_goes_on_without_the_checksums_of_its_state(lab: Lab) -> None:
    checkpoint = lab.checkpoint("available_now")
    for checksum in checkpoint.glob("state/0/*/*.delta.crc"):
        checksum.unlink()
    ran = lab.run(lab.counts(), checkpoint, "update")
    assert (ran.batches, ran.values, ran.error) == ([12], [10, 10, 10], "")


@pytest.mark.parametrize("kind", STATEFUL)
@pytest.mark.parametrize("metadata", ["state/0/_metadata", "state/0/0/_metadata"], ids=["operator", "schema"])
def test_spark_goes_on_without_the_metadata_of_its_state(lab: Lab, kind: str, metadata: str) -> None:
    checkpoint = lab.as_before(kind)
    before = names(checkpoint / metadata)
    remove(checkpoint, metadata)
    ran = lab.run(lab.counts(), checkpoint, "update")
    assert (len(ran.batches), ran.error) == (1, "")
    assert names(checkpoint / metadata) == before, "they were written anew"


@pytest.mark.parametrize(
    ("kind", "stray", "stops"),
    [
        ("state_hdfs", "README", False),
        ("state_hdfs", "2.bak", False),
        ("state_hdfs", "notes.txt", True),
        ("state_hdfs", ".DS_Store", True),
        ("state_rocksdb", "notes.txt", False),
        ("state_rocksdb", "copy.zip", True),
        ("state_rocksdb_changelog", "copy.changelog", True),
    ],
)
def test_a_stray_file_may_stop_the_upkeep_of_its_partition(lab: Lab, kind: str, stray: str, stops: bool) -> None:
    """Old versions stay for ever, and with HDFS-backed state no snapshot is made any more; nobody is told."""
    checkpoint = lab.as_before(kind)
    lab.spark.conf.set("spark.sql.streaming.minBatchesToRetain", "2")
    oldest = "1.changelog" if kind == "state_rocksdb_changelog" else "1.zip" if kind == "state_rocksdb" else "1.delta"
    (checkpoint / "state" / "0" / "0" / stray).write_text("x")
    with lab.running(lab.counts(), checkpoint, "update") as query:
        wait(lambda: not (checkpoint / "state" / "0" / "1" / oldest).exists())
        wait(lambda: stops or not (checkpoint / "state" / "0" / "0" / oldest).exists())
        assert query.isActive
    assert (checkpoint / "state" / "0" / "0" / oldest).exists() == stops


def test_a_stray_zip_beside_changelogs_stops_a_later_start(lab: Lab) -> None:
    """As soon as the version to start from has no zip of its own; the archived one has."""
    checkpoint = lab.as_before("state_rocksdb_changelog")
    (checkpoint / "state" / "0" / "0" / "copy.zip").write_text("x")
    assert lab.run(lab.counts(), checkpoint, "update").error == ""
    assert "[CANNOT_LOAD_STATE_STORE." in lab.run(lab.counts(), checkpoint, "update").error


@pytest.mark.parametrize("place", ["offsets/README", "offsets/9.bak", "commits/9.bak", "state/README", "state/0/README", "state/0/_metadata/README"])
def test_stray_files_elsewhere_are_not_read(lab: Lab, place: str) -> None:
    checkpoint = lab.checkpoint("available_now")
    (checkpoint / place).write_text("x")
    ran = lab.run(lab.counts(), checkpoint, "update")
    assert (ran.batches, ran.values, ran.error) == ([12], [10, 10, 10], "")


@pytest.mark.parametrize("moved", [False, True], ids=["where it was", "moved"])
def test_a_checkpoint_of_transform_with_state_cannot_be_moved(lab: Lab, moved: bool) -> None:
    """The metadata of its operator name the schema's file by its whole path. A stray file beside them is not read."""
    lab.as_before("transform_with_state")
    checkpoint = lab.folder / "checkpoint"
    assert lab.run(lab.latest(), checkpoint, "update").error == ""
    (checkpoint / "state" / "0" / "_metadata" / "v2" / "README").write_text("x")
    ran = lab.run(lab.latest(), checkpoint.rename(lab.folder / "moved") if moved else checkpoint, "update")
    if moved:
        assert re.search(f"File file:{checkpoint}/state/0/_stateSchema/default/0_[0-9a-f-]+ does not exist", ran.error)
    else:
        assert (ran.batches, ran.error) == ([1], "")


# Leftovers


@pytest.mark.parametrize("removed", [False, True], ids=["left", "removed"])
@pytest.mark.parametrize("kind", ["killed_leftover", "killed_in_state"])
def test_leftovers_of_a_crash_neither_hurt_nor_help(lab: Lab, kind: str, removed: bool) -> None:
    checkpoint = lab.checkpoint(kind)
    leftovers = [*checkpoint.rglob(".*.tmp"), *checkpoint.rglob(".*.tmp.crc")]
    assert leftovers
    for leftover in leftovers if removed else ():
        leftover.unlink()
    rows = lab.numbers() if kind == "killed_leftover" else lab.numbers().dropDuplicates(["value"])
    ran = lab.run(rows, checkpoint)
    assert (ran.batches[0], ran.values[:3], ran.error) == (3, [9, 10, 11], "")


@pytest.mark.parametrize("kind", ["killed_planned", "killed_written"])
def test_a_batch_that_was_not_committed_is_given_again(lab: Lab, kind: str) -> None:
    """Whether the sink has it cannot be told from the checkpoint."""
    ran = lab.run(lab.numbers(), lab.checkpoint(kind))
    assert (ran.batches[0], ran.values[:3], ran.error) == (3, [9, 10, 11], "")
