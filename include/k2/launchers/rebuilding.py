"""A checkpoint that is made again: the plan, from the stream's tables and then its source, and the exchange of the folders.

The plan is right for as long as nobody commits as the stream. For a start it is made in the transaction that has raised the fence; any other is a preview.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k2.checkpoints.aside import put_replaced
from k2.checkpoints.entries import Refused
from k2.checkpoints.rebuild_files import files_of, write
from k2.checkpoints.rebuild_plan import BronzePlan, Refusal, SilverPlan, plan_bronze, plan_silver, tail_of_silver
from k2.checkpoints.retention import Loss
from k2.launchers.retention import NotKnown, newest_batch, table_location
from k2.probes import kafka
from k2.probes.history import read_chain
from k2.probes.rebuilding import read_bronze, read_source
from k2.registry.history import Span
from k2.registry.observed import Wanted
from k2.registry.runtime import Runtime
from k2.state import streams
from k2.state.database import Connection

Made = BronzePlan | SilverPlan


class Impossible(RuntimeError):
    """No checkpoint is made, and asking again alone does not help: the message says why."""


def plan(runtime: Runtime, connection: Connection, stream: str, query: str, wanted: Wanted) -> Made:
    """Where a stream goes on, as its tables say: Bronze as a new query with the id `query`, Silver as the one that it was.

    `wanted` says what its checkpoint was seen with. Raises Impossible, or NotKnown when something cannot be read now.
    """
    try:
        found = _silver(runtime, connection, stream, wanted) if runtime.platform.streams[stream].reads else _bronze(runtime, connection, stream, query)
    except kafka.KafkaSilent as error:
        raise NotKnown(f"Kafka was asked where the topic of {stream} begins and ends: {error}") from error
    except (OSError, ValueError, KeyError) as error:
        raise NotKnown(f"the tables of {stream} cannot be read: {type(error).__name__}: {error}") from error
    if isinstance(found, Refusal):
        raise Impossible(f"its checkpoint cannot be made again: {found.reason}")
    return found


def _bronze(runtime: Runtime, connection: Connection, stream: str, query: str) -> BronzePlan | Refusal:
    spec = runtime.platform.streams[stream]
    topic = runtime.platform.exchanges[spec.exchange].topic
    if newest_batch(runtime, connection, spec.writes[0], query) is not None:
        return Refusal(f"{spec.writes[0]} has batches of query {query} already, which this request was to begin: ask again")
    bronze = read_bronze(_location(runtime, connection, spec.writes[0]), ())
    # After the table: what is committed meanwhile lies behind an end that is read before.
    heads = kafka.KafkaHeads(runtime.kafka)
    try:
        starts, ends = heads.starts([topic])[topic], heads.ends([topic])[topic]
        in_both = {p: held.last for p, held in bronze.partitions.items() if p in ends and starts[p] <= held.last < ends[p]}
        timestamps = heads.timestamps({topic: in_both})[topic]
    finally:
        heads.close()
    return plan_bronze(topic, bronze, starts, ends, query, streams.accepted_losses(connection, stream), timestamps)


def _silver(runtime: Runtime, connection: Connection, stream: str, wanted: Wanted) -> SilverPlan | Refusal:
    spec = runtime.platform.streams[stream]
    assert spec.reads is not None
    silver, dlq = (_location(runtime, connection, table) for table in spec.writes)
    table = read_chain(silver)
    tail = tail_of_silver(table)
    if isinstance(tail, Refusal):
        return tail
    source = read_source(_location(runtime, connection, spec.reads), tail)
    return plan_silver(table, read_chain(dlq), source, wanted.known_query_id, wanted.known_batch)


def _location(runtime: Runtime, connection: Connection, table: str) -> str:
    location = table_location(runtime, connection, table)
    if location is None:
        raise Impossible(f"its checkpoint cannot be made again: table {table} is not in the catalog")
    return location


def told(made: Made) -> dict[str, Any]:
    """What whoever approves a plan is told: {"sentence", "lost", "query"}."""
    return Loss(made.sentence().rstrip("."), lost(made)).as_dict() | {"query": made.query}


def loses_more(before: Mapping[str, Any], made: Made) -> bool:
    """Whether a plan loses what nobody was told of."""
    gone = lost(made)
    return bool(gone) and not Loss.of(before).covers(Loss("", gone))


def lost(made: Made) -> Mapping[str, Span]:
    """Offsets per partition that nothing can bring back."""
    return made.lost if isinstance(made, BronzePlan) else {}


def begins_after(made: Made) -> int | None:
    """The last batch that the planned checkpoint has committed."""
    return made.batch - 1 if isinstance(made, SilverPlan) and made.batch else None


def replace(made: Made, checkpoint: Path, fence: int) -> None:
    """Put what lies at a checkpoint's place into the quarantine, and the planned one in its place. Done again, it changes nothing.

    Only when no driver of the stream runs. Interrupted in between, the place is free and what lay there is in the quarantine. Raises NotKnown.
    """
    if _is_written(made, checkpoint):
        return
    try:
        put_replaced(checkpoint, fence)
    except Refused as error:
        raise NotKnown(
            f"{checkpoint} cannot be put into the quarantine: {error}: if that cannot be mended, move it out of {checkpoint.parent} by hand, "
            "and the start goes on by itself"
        ) from error
    try:
        write(made, checkpoint)
    except FileExistsError as error:
        raise NotKnown(str(error)) from error


def _is_written(made: Made, checkpoint: Path) -> bool:
    files = files_of(made)
    try:
        if any((checkpoint / name).read_bytes() != content for name, content in files.items()):
            return False
    except OSError:
        return False
    return sum(len(names) for _, _, names in os.walk(checkpoint)) == len(files)
