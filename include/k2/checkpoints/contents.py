"""What the files of a checkpoint say: text to values, and a refusal that names what is not known. Pure."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any

LOG_VERSION = "v1"
_NEWER = re.compile(r"v[0-9]+")
NO_OFFSET = "-"
"""In a plan: a source that had no data yet."""
MOST = 2**63 - 1
"""Spark's numbers are Java's long ones."""


class Malformed(ValueError):
    """A file is not what Spark writes there."""


class UnknownFormat(Malformed):
    """A file may be right, and is of a format that this reader does not know."""


class SourceKind(StrEnum):
    KAFKA = "kafka"
    ICEBERG = "iceberg"
    FILES = "files"
    RATE = "rate"
    RATE_MICRO_BATCH = "rate_micro_batch"


def identity(text: str) -> str:
    """The query id in `metadata`. Raises Malformed."""
    try:
        found = json.loads(text)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Malformed(f'metadata is {text[:80]!r}, not {{"id": ...}}') from None
    if not isinstance(found, str):
        raise Malformed(f"metadata names the query {found!r}, not a string")
    return found


def lines(text: str, name: str) -> list[str]:
    """The lines of a log's file below its version. Raises Malformed."""
    version, _, rest = text.partition("\n")
    if version != LOG_VERSION:
        refuse = UnknownFormat if _NEWER.fullmatch(version) else Malformed
        raise refuse(f"{name} is of log version {version[:20]!r}: this reader knows {LOG_VERSION!r} only")
    return [line for line in rest.split("\n") if line]


def check_plan(text: str, name: str) -> None:
    """Look at all of a file of `offsets`: what a batch was planned with. Raises Malformed."""
    millis = _object(_planned(text, name)[0], name).get("batchTimestampMs")
    if isinstance(millis, int) and millis > MOST:
        raise Malformed(f"{name} is of a time that is no number of Spark's: {str(millis)[:20]}... ms")
    offsets(text, name)


def offsets(text: str, name: str) -> tuple[Any, ...]:
    """Per source the offset that a planned batch ends with, None where there was no data yet. Raises Malformed.

    Kafka: {topic: {partition: offset}}. Iceberg: {"version", "snapshot_id", "position", "scan_all_files"}. Files: {"logOffset"}.
    Rate: a number, or {"offset", "timestamp"} of rate-micro-batch.
    """
    return tuple(None if line == NO_OFFSET else _json(line, f"{name}, source {number}") for number, line in enumerate(_planned(text, name)[1:]))


def _planned(text: str, name: str) -> list[str]:
    found = lines(text, name)
    if len(found) < 2:
        raise Malformed(f"{name} has {len(found)} lines below its version: it must have metadata and one per source")
    return found


def commit(text: str, name: str) -> dict[str, Any]:
    """One file of `commits`: what Spark keeps of a finished batch. Raises Malformed."""
    found = lines(text, name)
    if len(found) != 1:
        raise Malformed(f"{name} has {len(found)} lines below its version: it must have one")
    return _object(found[0], name)


def partitions(text: str, name: str) -> int:
    """Into how many partitions a stateful operator has divided its state, as its `_metadata/metadata` says. Raises Malformed."""
    try:
        return max(int(store["numPartitions"]) for store in _object("\n".join(lines(text, name)), name)["stateStoreInfo"])
    except (KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, Malformed) else Malformed(f"{name} says nothing of partitions") from None


def start(text: str, name: str) -> Any:
    """Where a query began to read, as the source keeps it: offsets of Kafka or Iceberg, milliseconds since 1970 of rate. Raises Malformed."""
    # Kafka's has a zero byte before its version, Iceberg's no version at all.
    body = text.removeprefix("\0")
    return _json(body.removeprefix(f"{LOG_VERSION}\n").strip(), name)


def file_log(text: str, name: str) -> list[dict[str, Any]]:
    """One file of the log of a file source ({"path", "timestamp", "batchId"}) or of a file sink ({"path", "size", "action", ...}). Raises Malformed."""
    return [_object(line, name) for line in lines(text, name)]


def kind(offset: Any) -> SourceKind:
    """Which source has written an offset. Raises Malformed for one that this reader does not know."""
    if isinstance(offset, bool):
        raise UnknownFormat(f"offset {offset!r} is of no source that is known here")
    if isinstance(offset, int):
        return SourceKind.RATE
    if isinstance(offset, dict):
        if "snapshot_id" in offset:
            if (version := offset.get("version")) != 1:
                raise UnknownFormat(f"offset {offset!r} is Iceberg's of version {version!r}: this reader knows 1 only")
            return SourceKind.ICEBERG
        if set(offset) == {"logOffset"}:
            return SourceKind.FILES
        if set(offset) == {"offset", "timestamp"}:
            return SourceKind.RATE_MICRO_BATCH
        if offset and all(isinstance(partitions, dict) and all(isinstance(o, int) for o in partitions.values()) for partitions in offset.values()):
            return SourceKind.KAFKA
    raise UnknownFormat(f"offset {json.dumps(offset)[:80]} is of no source that is known here: {', '.join(SourceKind)}")


def _object(line: str, name: str) -> dict[str, Any]:
    found = _json(line, name)
    if not isinstance(found, dict):
        raise Malformed(f"{name} holds {line[:80]!r}, not an object")
    return found


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise Malformed(f"{where} is {line[:80]!r}, not JSON") from None
