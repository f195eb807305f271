"""Checkpoints like Spark's, written by hand: for what real ones cannot be brought to show in milliseconds."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

QUERY = "0c1b7cf6-6e0f-4f6c-9a3e-3d5f2c1b0a99"
LEFTOVER = ".5.8a5b8c1e-0a4e-4c40-9f3f-3a3b6a7e1d11.tmp"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
ABOUT = '{"batchWatermarkMs":0,"batchTimestampMs":1796057667159,"conf":{}}'
Content = dict[str, tuple[bytes, int] | str | None]


def make(root: Path, *, offsets: Iterable[int] = range(6), commits: Iterable[int] = range(6), metadata: str | None = json.dumps({"id": QUERY})) -> Path:
    """A checkpoint of a query that reads Kafka, an hour old, with the given batches; each was planned a second before its commit."""
    for log, batches, text in (("offsets", offsets, f'v1\n{ABOUT}\n{{"trades":{{"0":1}}}}'), ("commits", commits, 'v1\n{"nextBatchWatermarkMs":0}')):
        (root / log).mkdir(parents=True)
        for batch in batches:
            write(root / log / str(batch), text)
            write(root / log / f".{batch}.crc", "crc")
    write(root / "sources" / "0" / "0", '\0v1\n{"trades":{"0":0}}')
    if metadata is not None:
        write(root / "metadata", metadata)
    return root


def write(path: Path, text: str = "x", *, hours: float = 1) -> Path:
    """A file of that age."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return touch(path, hours=hours)


def rocksdb(path: Path, *tables: str) -> Path:
    """A snapshot of a RocksDB store that names these table files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata", "v1\n" + json.dumps({"sstFiles": [{"dfsSstFileName": name} for name in tables]}))
    return touch(path, hours=1)


def touch(path: Path, *, hours: float) -> Path:
    stamp = (NOW - timedelta(hours=hours)).timestamp()
    os.utime(path, (stamp, stamp))
    return path


def content(tree: Path) -> Content:
    """Every path below a folder: bytes and time of a file, None of a folder, what a link names."""
    found: Content = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
    return found
