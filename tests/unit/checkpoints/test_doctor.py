"""What the doctor says of a checkpoint: each kind of trouble, and nothing of a healthy one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from k2.checkpoints.doctor import MANY_CHANGES, Finding, Health, Surroundings
from k2.checkpoints.examine import NotACheckpoint, examine
from k2.checkpoints.report import markdown, signed, size
from k2.checkpoints.retention import Loss

from .folders import ABOUT, LEFTOVER, NOW, make, touch, write

OURS = Surroundings(stream="bronze_binance", keeps=timedelta(days=7), limit_mb=1024)
FILES = f'v1\n{ABOUT}\n{{"logOffset":11}}'


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look at damage does not wait."""
    monkeypatch.setattr("k2.checkpoints.examine.LOOK_AGAIN_SECONDS", 0)


def findings(root: Path, around: Surroundings = OURS) -> tuple[Finding, ...]:
    return examine(root, around, NOW).findings


def the_worst(root: Path, around: Surroundings = OURS) -> Finding:
    """The first finding, which is the worst."""
    found = findings(root, around)
    assert found, "nothing was found"
    return found[0]


def test_a_healthy_checkpoint(tmp_path: Path) -> None:
    """Identity, source, batches and sizes are told, and nothing is wrong."""
    found = examine(make(tmp_path / "bronze-binance"), OURS, NOW)
    assert (found.health, found.findings, found.sources, found.planned, found.committed) == (Health.HEALTHY, (), ("kafka",), 5, 5)
    assert json.loads(json.dumps(found.as_dict()))["health"] == "healthy"


@pytest.mark.parametrize(("offsets", "commits"), [(range(7), range(6)), (range(1), range(0)), (range(40, 141), range(40, 140))])
def test_a_batch_in_flight_is_healthy(tmp_path: Path, offsets: range, commits: range) -> None:
    """The last plan may be one ahead of the last commit, and old batches were purged."""
    assert findings(make(tmp_path / "c", offsets=offsets, commits=commits)) == ()


def test_an_idle_query_is_healthy(tmp_path: Path) -> None:
    """Nothing ever arrived: an identity and no batch."""
    assert findings(make(tmp_path / "c", offsets=(), commits=())) == ()
    assert examine(tmp_path / "absent", OURS, NOW).exists is False


def test_old_metadata_is_no_trouble(tmp_path: Path) -> None:
    """It is written once: in every healthy stream it is the oldest file."""
    root = make(tmp_path / "c")
    touch(root / "metadata", hours=24 * 30)
    assert findings(root) == ()


@pytest.mark.parametrize(
    ("changes", "evidence"),
    [
        ({"metadata": None}, "metadata is missing"),
        ({"metadata": "garbage"}, "metadata is 'garbage'"),
        ({"metadata": ""}, "metadata is ''"),
        ({"offsets": (), "commits": range(6)}, "without any offsets"),
        ({"offsets": range(6), "commits": range(3)}, "must be equal or neighbours"),
        ({"offsets": range(6), "commits": ()}, "without any commit"),
        ({"offsets": range(5, 6), "commits": range(4, 6)}, "offsets/4 is not"),
    ],
)
def test_damage_to_the_logs(tmp_path: Path, changes: dict[str, object], evidence: str) -> None:
    """What a restart would stumble over is damage, with what follows and what to do."""
    found = the_worst(make(tmp_path / "c", **changes))  # type: ignore[arg-type]
    assert found.health is Health.DAMAGED and evidence in found.evidence
    assert found.consequence and "rebuild" in found.fix


@pytest.mark.parametrize(
    ("name", "text", "health", "evidence"),
    [
        ("offsets/5", "", Health.DAMAGED, "offsets/5 is of log version ''"),
        ("offsets/4", "v1\n{", Health.DAMAGED, "offsets/4 has 1 lines"),
        ("commits/5", "v1", Health.DAMAGED, "commits/5 has 0 lines"),
        ("commits/5", 'v2\n{"stateUniqueIds":{}}', Health.UNKNOWN, "log version 'v2'"),
        ("offsets/5", f'v1\n{ABOUT}\n{{"shard":"x"}}', Health.UNKNOWN, "no source that is known here"),
        ("sources/0/0", "half", Health.DAMAGED, "not JSON"),
    ],
)
def test_what_the_files_say(tmp_path: Path, name: str, text: str, health: Health, evidence: str) -> None:
    """Half a file is damage; a format that is not known is not."""
    root = make(tmp_path / "c")
    write(root / name, text)
    found = the_worst(root)
    assert found.health is health and evidence in found.evidence


def test_an_identity_that_was_minted_anew(tmp_path: Path) -> None:
    """Metadata that is younger than the oldest plan was lost and written anew, unless a person gave it a new one."""
    root = make(tmp_path / "c")
    touch(root / "metadata", hours=0)
    assert the_worst(root).health is Health.DAMAGED and the_worst(root).evidence == "metadata is younger than offsets/0"
    assert the_worst(root, Surroundings(alone=True)).health is Health.UNKNOWN, "a person may have given it a new one"
    assert findings(root, Surroundings(stream="bronze_binance", known=True)) == ()


def test_an_identity_that_was_minted_anew_in_a_mature_stream(tmp_path: Path) -> None:
    """Spark keeps a hundred batches and one."""
    root = make(tmp_path / "c", offsets=range(700, 801), commits=range(700, 801))
    touch(root / "metadata", hours=0)
    assert the_worst(root).evidence == "metadata is younger than offsets/700"


@pytest.mark.parametrize("folder", ["offsets", "commits"])
def test_what_cannot_be_listed_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Of a folder that may not be read nothing is called damaged."""
    root = make(tmp_path / "c")
    listed = os.scandir

    def refuse(path: str) -> object:
        if path.endswith(f"/{folder}"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr("k2.checkpoints.scan.os.scandir", refuse)
    assert {f.health for f in findings(root)} == {Health.UNKNOWN}


def test_partitions_of_state_that_are_gone(tmp_path: Path) -> None:
    """The operator says how many there must be."""
    root = make(tmp_path / "c")
    described = {"operatorInfo": {}, "stateStoreInfo": [{"storeName": "default", "numPartitions": 2}]}
    write(root / "state" / "0" / "_metadata" / "metadata", "v1\n" + json.dumps(described))
    write(root / "state" / "0" / "0" / "6.snapshot")
    assert "state/0 has 1 of 2 partitions" in the_worst(root).evidence


def test_strays_of_an_unknown_source_are_left_alone(tmp_path: Path) -> None:
    """What lies there may be its own."""
    root = make(tmp_path / "c")
    write(root / "offsets" / "5", f'v1\n{ABOUT}\n{{"reservoirId":"x"}}')
    write(root / "sources" / "0" / "rocksdb" / "1.log")
    assert all(f.health is Health.UNKNOWN and "move them out" not in f.fix for f in findings(root))


@pytest.mark.parametrize(
    ("name", "text"), [("metadata", "[" * 100_000), ("offsets/5", 'v1\n{"batchTimestampMs":' + "9" * 40 + "}\n{}"), ("commits/5", "v1\n" + "[" * 100_000)]
)
def test_absurd_contents_are_damage(tmp_path: Path, name: str, text: str) -> None:
    """And no error of ours."""
    root = make(tmp_path / "c")
    write(root / name, text)
    assert the_worst(root).health is Health.DAMAGED


def test_a_pipe_in_place_of_a_file(tmp_path: Path) -> None:
    """Nobody waits for it."""
    root = make(tmp_path / "c")
    (root / "metadata").unlink()
    os.mkfifo(root / "metadata")
    assert Health.UNKNOWN in {f.health for f in findings(root)}


def test_somebody_else_deletes(tmp_path: Path) -> None:
    """A gap further down breaks no start, and Spark did not make it."""
    found = the_worst(make(tmp_path / "c", offsets=[0, 1, 3, 4, 5]))
    assert found.health is Health.BREAKING and "offsets/2 is missing between 0 and 5" in found.evidence


def test_where_it_began_is_gone(tmp_path: Path) -> None:
    """Spark would ask the source anew."""
    root = make(tmp_path / "c")
    (root / "sources" / "0" / "0").unlink()
    assert the_worst(root).health is Health.BREAKING and "where source 0 began is gone" in the_worst(root).evidence


@pytest.mark.parametrize(
    ("names", "evidence"),
    [
        ([*map(str, range(9)), "9.compact", "10", "11"], ""),
        (["9.compact", "19.compact", "20"], ""),
        ([*map(str, range(9)), "10", "11"], "batch 9 is missing, and no compact file holds it"),
        (["9.compact", *map(str, range(10, 19)), "20", "21"], "batch 19 is missing, and 9.compact is the newest"),
        (["9.compact", "29.compact"], "not at even distances"),
        (["9.compact", "19.compact", "39.compact"], "not at even distances"),
    ],
)
def test_the_log_of_a_file_source(tmp_path: Path, names: list[str], evidence: str) -> None:
    """All since the newest compact file must be there, and no compact file between."""
    root = make(tmp_path / "c")
    (root / "sources" / "0" / "0").unlink()
    for batch in range(6):
        write(root / "offsets" / str(batch), FILES)
    for name in names:
        write(root / "sources" / "0" / name, 'v1\n{"path":"a"}\n{"path":"b"}')
    found = findings(root)
    assert bool(found) == bool(evidence) and evidence in "".join(f.evidence for f in found)


def test_the_log_of_a_file_sink(tmp_path: Path) -> None:
    """Without its newest compact file the stream stays green, and every reader fails."""
    out = tmp_path / "out"
    for name in ("9.compact", "10", "12"):
        write(out / "_spark_metadata" / name, 'v1\n{"path":"a"}')
    found = the_worst(out, Surroundings(alone=True))
    assert found.health is Health.DAMAGED and "every reader of its output fails" in found.consequence


def test_half_a_file_log(tmp_path: Path) -> None:
    """Its newest file is read, too."""
    root = make(tmp_path / "c")
    for batch in range(6):
        write(root / "offsets" / str(batch), FILES)
    write(root / "sources" / "0" / "1", "v1\n{")
    assert the_worst(root).health is Health.DAMAGED and "sources/0/1" in the_worst(root).evidence


def test_a_file_log_that_has_become_large(tmp_path: Path) -> None:
    """It names every file that there ever was."""
    out = tmp_path / "out" / "_spark_metadata"
    write(out / "9.compact")
    os.truncate(out / "9.compact", 200 * 1024 * 1024)
    found = the_worst(out.parent, Surroundings(alone=True))
    assert found.health is Health.GROWING and "200 MiB" in found.evidence


def test_state_that_cannot_be_loaded(tmp_path: Path) -> None:
    """A change is missing behind the newest snapshot."""
    root = make(tmp_path / "c")
    for name in ("4.snapshot", "6.delta"):
        write(root / "state" / "0" / "0" / name)
    assert the_worst(root).health is Health.DAMAGED and "state/0/0: version 6 needs version 5" in the_worst(root).evidence


def test_state_without_batches(tmp_path: Path) -> None:
    """Somebody deleted the logs and left the state."""
    root = make(tmp_path / "c", offsets=(), commits=())
    write(root / "state" / "0" / "0" / "1.delta")
    assert "neither offsets nor commits" in the_worst(root).evidence


def test_state_that_never_snapshots(tmp_path: Path) -> None:
    """Runs that end before the maintenance of the state comes: told with the setting, not deleted."""
    root = make(tmp_path / "c", offsets=range(MANY_CHANGES), commits=range(MANY_CHANGES))
    for number in range(1, MANY_CHANGES + 1):
        write(root / "state" / "0" / "0" / f"{number}.delta")
    found = the_worst(root)
    assert found.health is Health.GROWING and "maintenanceInterval" in found.fix


@pytest.mark.parametrize(("hours", "told"), [(25, True), (23, False)])
def test_leftovers_of_crashes(tmp_path: Path, hours: float, told: bool) -> None:
    """Only what is a day old: a younger one may be of a write that is under way."""
    root = make(tmp_path / "c")
    write(root / "offsets" / LEFTOVER, hours=hours)
    assert [f.health for f in findings(root)] == [Health.GROWING] * told


def test_a_leftover_is_older_than_the_longest_batches(tmp_path: Path) -> None:
    """A batch of ten hours may write for ten hours."""
    root = make(tmp_path / "c")
    write(root / "offsets" / LEFTOVER, hours=25)
    touch(root / "offsets" / "5", hours=11)
    assert findings(root) == ()


def test_checksums_alone_are_taken_for_another_query(tmp_path: Path) -> None:
    """Spark would say that several queries use the checkpoint."""
    root = make(tmp_path / "c", commits=())
    write(root / "commits" / ".5.crc")
    assert any("another query that runs" in f.consequence for f in findings(root))


@pytest.mark.parametrize("name", ["offsets/notes.txt", "state/0/0/copy", "commits/6.tmp", "readme"])
def test_strays(tmp_path: Path, name: str) -> None:
    """What Spark did not write is to be moved out."""
    root = make(tmp_path / "c")
    write(root / name)
    found = the_worst(root)
    assert found.health is Health.BREAKING and name in found.evidence


def test_links_make_it_unknowable(tmp_path: Path) -> None:
    """They may lead anywhere."""
    root = make(tmp_path / "c")
    (root / "sources" / "loop").symlink_to(root)
    assert the_worst(root).health is Health.UNKNOWN


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """It is neither missing nor right."""
    root = make(tmp_path / "c")
    (root / "metadata").write_bytes(b"\xff\xfe\x00")
    found = examine(root, OURS, NOW)
    assert found.health is Health.UNKNOWN and "metadata: it is not text" in found.findings[0].evidence


@pytest.mark.parametrize(
    ("around", "health", "evidence"),
    [
        (Surroundings("s", rewound="its checkpoint ends with batch 3"), Health.DAMAGED, "ends with batch 3"),
        (Surroundings("s", loss=Loss("Kafka no longer holds 5 records")), Health.DAMAGED, "no longer holds 5 records"),
        (Surroundings("s", keeps=timedelta(hours=1.3), behind=True), Health.BREAKING, "its last commit is 0.0 days old"),
        (Surroundings("s", unread=("PostgreSQL did not answer",)), Health.UNKNOWN, "PostgreSQL did not answer"),
        (Surroundings(None), Health.GROWING, "no declared stream claims it"),
        (Surroundings(None, begins_on_main=False), Health.BREAKING, "the snapshot that its reader began with"),
        (Surroundings("s", limit_mb=0.0001), Health.GROWING, "0 MiB"),
    ],
)
def test_what_it_is_compared_with(tmp_path: Path, around: Surroundings, health: Health, evidence: str) -> None:
    """Its stream, its source and its size."""
    found = the_worst(make(tmp_path / "c"), around)
    assert found.health is health and evidence in found.evidence


def test_a_quiet_topic_loses_nothing(tmp_path: Path) -> None:
    """All that it holds is committed, however long ago."""
    assert findings(make(tmp_path / "c"), Surroundings("s", keeps=timedelta(hours=1.3), behind=False)) == ()


def test_growth_needs_an_earlier_size(tmp_path: Path) -> None:
    """Bytes a day, by a look of another day."""
    root = make(tmp_path / "c")
    assert examine(root, OURS, NOW).growth_per_day is None
    before = Surroundings("s", earlier=(NOW - timedelta(days=2), 0))
    found = examine(root, before, NOW)
    assert found.growth_per_day == pytest.approx(found.bytes / 2)


def test_damage_is_looked_at_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that runs may have moved between two listings."""
    root = make(tmp_path / "c", offsets=range(8), commits=range(6))
    monkeypatch.setattr("k2.checkpoints.examine.time.sleep", lambda seconds: write(root / "commits" / "6", 'v1\n{"nextBatchWatermarkMs":0}'))
    assert findings(root) == ()


def _a_file(path: Path) -> None:
    path.write_text("x")


def _a_link(path: Path) -> None:
    path.symlink_to(path.parent)


def _a_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(("make_it", "why"), [(_a_file, "is a file"), (_a_link, "is a symbolic link"), (_a_loop, "is a symbolic link")])
def test_what_is_no_checkpoint(tmp_path: Path, make_it: Callable[[Path], None], why: str) -> None:
    """A clear refusal that names the path."""
    make_it(tmp_path / "c")
    with pytest.raises(NotACheckpoint, match=f"c {why}"):
        examine(tmp_path / "c", OURS, NOW)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    """Nothing in it is Spark's."""
    write(tmp_path / "c" / "photos" / "1.jpg")
    assert {f.health for f in findings(tmp_path / "c")} == {Health.UNKNOWN, Health.BREAKING}


GONE = "its checkpoint belongs to no query, and it was that of q"


@pytest.mark.parametrize(
    ("around", "health", "absence"),
    [
        (OURS, Health.HEALTHY, "never started"),
        (replace(OURS, rewound=GONE), Health.DAMAGED, "gone"),
        (replace(OURS, loss=Loss("its table has rows")), Health.DAMAGED, "gone"),
        (replace(OURS, unread=("PostgreSQL does not answer",)), Health.UNKNOWN, "not there"),
        (replace(OURS, rewound=GONE, retired="its checkpoint x is retired by ann"), Health.HEALTHY, "retired"),
    ],
)
def test_a_checkpoint_that_is_not_there(tmp_path: Path, around: Surroundings, health: Health, absence: str) -> None:
    """One that its stream was seen with is damaged as any other; what cannot be told is not called fine."""
    found = examine(tmp_path / "x", around, NOW)
    assert (found.exists, found.health, found.absence) == (False, health, absence)
    assert f"| x | bronze_binance | {absence} |" in markdown([found])


def test_the_report_names_everything(tmp_path: Path) -> None:
    """A row per checkpoint, and each finding with what to do."""
    found = [examine(make(tmp_path / "a"), OURS, NOW), examine(make(tmp_path / "b", metadata=None), Surroundings(), NOW), examine(tmp_path / "x", OURS, NOW)]
    text = markdown(found)
    assert "| a | bronze_binance | healthy |" in text and "| b | **unclaimed** | damaged |" in text and "| x | bronze_binance | never started |" in text
    assert text.index("**b** is damaged: metadata is missing") < text.index("**b** is growing: no declared stream")
    assert markdown(found[:1]).endswith("Nothing is wrong.")


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**3, "5.0 GiB"), (3 * 1024**4, "3.0 TiB")])
def test_size(count: int, words: str) -> None:
    """Bytes as a person reads them."""
    assert (size(count), signed(-count)) == (words, f"-{words}" if count else "+0 B")
