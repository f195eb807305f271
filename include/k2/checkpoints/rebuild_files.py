"""The files of a checkpoint that is made again, as Spark 4.1 writes them, and the writing of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from k2.checkpoints.disk import sync
from k2.checkpoints.names import being_written
from k2.checkpoints.rebuild_plan import BronzePlan, SilverPlan

CONF = {
    "spark.sql.streaming.stateStore.providerClass": "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider",
    "spark.sql.streaming.stateStore.rocksdb.formatVersion": "5",
    "spark.sql.streaming.stateStore.encodingFormat": "unsaferow",
    "spark.sql.streaming.statefulOperator.useStrictDistribution": "true",
    "spark.sql.streaming.flatMapGroupsWithState.stateFormatVersion": "2",
    "spark.sql.streaming.multipleWatermarkPolicy": "min",
    "spark.sql.streaming.aggregation.stateFormatVersion": "2",
    "spark.sql.streaming.join.stateFormatVersion": "2",
    "spark.sql.streaming.stateStore.compression.codec": "lz4",
    "spark.sql.optimizer.pruneFiltersCanPruneStreamingSubplan": "false",
}
"""What Spark 4.1 writes into a plan of a query that has set none of it. A plan without them is taken for one of a Spark that did not know them yet, and
gets what was right then. Not among them: the number of shuffle partitions, which is then the session's."""


def write(plan: BronzePlan | SilverPlan, target: Path) -> None:
    """Write the checkpoint that is planned: whole, and on the disk, or not at all.

    Spark looks at no checksum that is not there, so none is written. Raises FileExistsError when there is anything at `target`.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is there: move it away before another checkpoint is written in its place")
    part = target.with_name(being_written(target.name))
    shutil.rmtree(part, ignore_errors=True)  # of a writing that was interrupted
    for name, content in files_of(plan).items():
        file = part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
    for folder in (*(Path(root) for root, _, _ in os.walk(part)), part.parent):
        sync(folder)
    part.rename(target)
    sync(target.parent)


def files_of(plan: BronzePlan | SilverPlan) -> dict[str, bytes]:
    """The files of the checkpoint, byte by byte as Spark 4.1 writes them."""
    identity = {"metadata": _json({"id": plan.query}).encode()}
    if isinstance(plan, BronzePlan):
        offsets = _json({plan.topic: {b.partition: b.offset for b in plan.begins}})
        # Spark 2.1 could not read a version, so its successors put a byte before it that tells it where to stop.
        return identity | {"sources/0/0": b"\0v1\n" + offsets.encode()}
    about = {"batchWatermarkMs": 0, "batchTimestampMs": int(plan.at.timestamp() * 1000), "conf": CONF}
    batches = {f"offsets/{plan.batch}": plan.end}
    if plan.batch:
        batches[f"offsets/{plan.batch - 1}"] = plan.begin
        identity[f"commits/{plan.batch - 1}"] = b'v1\n{"nextBatchWatermarkMs":0}'
    planned = {name: f"v1\n{_json(about)}\n{place.as_json()}".encode() for name, place in batches.items()}
    return identity | planned | {"sources/0/offsets/0": plan.begin.as_json().encode()}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
