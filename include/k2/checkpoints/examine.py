"""Examines every checkpoint: whose it is, how large, what lies in it that Spark no longer needs, and what is wrong with it.

It reads and reports only. What may ever go is a whole checkpoint of a query that was retired on purpose, and, inside a
live one, leftovers of crashed writes; never `metadata`, `offsets`, `commits` or `sources`, whatever their age: `metadata` is
written once, so in a healthy stream it is always old, and without it the sink forgets which batches it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LEFTOVER = re.compile(r"^\.[^/]+\.[0-9a-f-]{36}(\.TID\d+)?\.tmp$")
LEFTOVER_AGE = timedelta(hours=24)
LOGS = ("offsets", "commits")


@dataclass(frozen=True)
class Entry:
    """One file of a checkpoint: its path below the root, bytes, and time of last change."""

    path: str
    size: int
    changed: datetime


@dataclass(frozen=True)
class Examination:
    """What one checkpoint folder holds. `anomalies` say what is wrong, `leftovers` what a pruner could remove and why."""

    folder: str
    stream: str | None
    """None when no declared stream claims the folder."""
    exists: bool
    query_id: str | None = None
    batches: int = 0
    first_batch: int | None = None
    last_planned: int | None = None
    last_committed: int | None = None
    files: int = 0
    bytes: int = 0
    last_change: datetime | None = None
    leftovers: list[str] = field(default_factory=list)
    leftover_bytes: int = 0
    anomalies: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"last_change": self.last_change.isoformat() if self.last_change else None}


def examine_all(root: Path, claims: dict[str, str], now: datetime) -> list[Examination]:
    """Every claimed folder (`claims`: folder name -> stream), there or not, then every unclaimed one below `root`.

    A folder that cannot be read is reported as an anomaly, not left out.
    """
    names = list(claims)
    with contextlib.suppress(FileNotFoundError):  # nothing was ever started here
        names += sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name not in claims)
    return [_examine_folder(root / name, claims.get(name), now) for name in names]


def _examine_folder(path: Path, stream: str | None, now: datetime) -> Examination:
    if not path.exists():
        return Examination(folder=path.name, stream=stream, exists=False)
    try:
        entries = list(walk(path))
        metadata = (path / "metadata").read_text() if (path / "metadata").is_file() else None
    except OSError as error:
        return Examination(folder=path.name, stream=stream, exists=True, anomalies=[f"unreadable: {error.strerror}: {error.filename}"])
    return judge(path.name, stream, entries, metadata, now)


def walk(root: Path) -> Iterable[Entry]:
    """All files below `root`. One that vanishes meanwhile was purged by Spark or renamed, and is left out."""
    for folder, _, files in os.walk(root, onerror=_raise_unless_gone):
        for name in files:
            path = Path(folder) / name
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield Entry(str(path.relative_to(root)), status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def judge(folder: str, stream: str | None, entries: list[Entry], metadata: str | None, now: datetime) -> Examination:
    """Pure: a listing and the text of `metadata` to what they say of the checkpoint."""
    logs = {log: _numbers(entries, log) for log in LOGS}
    leftovers = [e for e in entries if LEFTOVER.match(Path(e.path).name) and now - e.changed >= LEFTOVER_AGE]
    query_id, anomalies = _identity(metadata, bool(logs["offsets"] or logs["commits"]))
    anomalies += _sequence(logs["offsets"], logs["commits"])
    anomalies += _reminted(entries, logs["offsets"])
    anomalies += _strays(entries)
    return Examination(
        folder=folder,
        stream=stream,
        exists=True,
        query_id=query_id,
        batches=len(logs["commits"]),
        first_batch=min(logs["offsets"], default=None),
        last_planned=max(logs["offsets"], default=None),
        last_committed=max(logs["commits"], default=None),
        files=len(entries),
        bytes=sum(e.size for e in entries),
        last_change=max((e.changed for e in entries), default=None),
        leftovers=sorted(e.path for e in leftovers),
        leftover_bytes=sum(e.size for e in leftovers),
        anomalies=anomalies,
    )


def _numbers(entries: Iterable[Entry], log: str) -> set[int]:
    found = set()
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        if folder == log and name.isascii() and name.isdigit():
            found.add(int(name))
    return found


def _identity(metadata: str | None, has_batches: bool) -> tuple[str | None, list[str]]:
    if metadata is None:
        lost = "metadata is missing though batches exist: the next start would mint a new query id, and the sink would forget its batches"
        return None, [lost] if has_batches else []
    try:
        query_id = json.loads(metadata)["id"]
    except (ValueError, KeyError, TypeError):
        return None, [f"metadata is {metadata[:80]!r}, not a query id"]
    return str(query_id), []


def _sequence(offsets: set[int], commits: set[int]) -> list[str]:
    """The last two plans must follow on each other, and the last commit must be one of them."""
    if not offsets:
        return [f"commits up to {max(commits)} without any offsets: a restart would skip data"] if commits else []
    last = max(offsets)
    found = []
    if last > 0 and last - 1 not in offsets:
        found.append(f"offsets/{last} is there but offsets/{last - 1} is not: the query cannot restart")
    if commits and max(commits) not in (last, last - 1):
        found.append(f"the last commit is {max(commits)}, the last plan {last}: they must be equal or neighbours")
    if not commits and last > 0:
        found.append(f"offsets up to {last} without any commit: batch {last} would be repeated, and earlier ones are unproven")
    return found


def _reminted(entries: list[Entry], offsets: set[int]) -> list[str]:
    """A `metadata` younger than the oldest plan was lost and written anew, under another query id."""
    changed = {e.path: e.changed for e in entries}
    if "metadata" not in changed or not offsets:
        return []
    oldest = changed[f"offsets/{min(offsets)}"]
    if changed["metadata"] > oldest + timedelta(seconds=1):
        return [f"metadata is younger than offsets/{min(offsets)}: the query id was minted anew, earlier batches are not known under it"]
    return []


def _strays(entries: Iterable[Entry]) -> list[str]:
    """Files in the logs that Spark did not write."""
    names = {e.path for e in entries}
    strays = []
    for path in sorted(names):
        folder, _, name = path.rpartition("/")
        if folder not in LOGS or name.isdigit() or LEFTOVER.match(name):
            continue
        if name.startswith(".") and name.endswith(".crc"):
            if f"{folder}/{name[1:-4]}" not in names and not LEFTOVER.match(name[:-4]):
                strays.append(f"{path} is the checksum of a file that is gone")
            continue
        strays.append(f"{path} is no file of Spark's: move it out of the checkpoint")
    return strays


def batch_seconds(entries: Iterable[Entry], last: int) -> list[float]:
    """How long the last batches took, oldest first: from the plan's file to the commit's. Batches in flight are left out."""
    changed = {entry.path: entry.changed for entry in entries}
    done = sorted(int(p.removeprefix("commits/")) for p in changed if p.startswith("commits/") and p.removeprefix("commits/").isdigit())
    return [(changed[f"commits/{n}"] - changed[f"offsets/{n}"]).total_seconds() for n in done[-last:] if f"offsets/{n}" in changed]


def could_go(examination: Examination) -> list[str]:
    """What a pruner may one day remove, each with its reason. Nothing of it is removed now."""
    found = []
    if examination.leftovers:
        found.append(f"leftovers of crashed writes ({len(examination.leftovers)}, {examination.leftover_bytes:,} bytes): temporary files older than 24 h")
    if examination.stream is None and examination.exists:
        found.append("the whole folder, once a person registers its query as retired: no declared stream claims it, which alone is no proof")
    return found
