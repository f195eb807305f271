"""The archived checkpoints are what Spark writes today."""

from __future__ import annotations

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k2.registry.runtime import Runtime

from ...fixtures.checkpoints.generate import KINDS, describe, generate
from ...fixtures.checkpoints.load import index, kinds, unpack

BINARY = {".delta", ".snapshot", ".changelog", ".sst", ".tmp"}
IDENTIFIER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def shape(folder: Path) -> dict[str, set[str]]:
    """What is in the checkpoint and the sink's folder: per path, without its numbers and ids, what its lines are made of.

    The checksum of a leftover is left out: whether there was one depends on the moment of the kill.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for top in ("checkpoint", "output"):
        for path in (folder / top).rglob("*"):
            if not path.name.endswith(".tmp.crc"):
                found[anonymous(str(path.relative_to(folder)))] |= set(contents(path))
    return found


def anonymous(text: str) -> str:
    return re.sub(r"\d+", "N", IDENTIFIER.sub("ID", text))


def contents(path: Path) -> Iterator[str]:
    if path.is_dir():
        yield "folder"
    elif path.suffix == ".zip":
        yield from (anonymous(name) for name in zipfile.ZipFile(path).namelist())
    elif path.name.startswith(".") or path.suffix in BINARY or path.parent.name == "default" or path.name == "schema":
        yield "binary"
    else:
        for number, line in enumerate(path.read_text().splitlines()):
            yield f"line {min(number, 2)}: {line if number == 0 and line.strip(chr(0)) in ('v1', 'v2') else ' '.join(made_of(line))}"


def made_of(line: str) -> Iterable[str]:
    try:
        return sorted(set(keys(json.loads(line), "")))
    except ValueError:
        return [anonymous(line)]


def keys(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from keys(below, f"{path}/{anonymous(key)}")
    elif isinstance(value, list):
        for below in value:
            yield from keys(below, f"{path}[]")
    else:
        yield f"{path} {type(value).__name__}"


@pytest.fixture(scope="module")
def fresh(base_stack: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from confluent_kafka.admin import AdminClient

    folder = tmp_path_factory.mktemp("fresh")
    generate(folder, base_stack.kafka)
    yield folder
    for deleted in AdminClient({"bootstrap.servers": base_stack.kafka}).delete_topics(["trades", "quiet"]).values():
        deleted.exception()


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_spark_still_writes_what_is_archived(fresh: Path, tmp_path: Path, kind: str) -> None:
    """Otherwise: does the reader know the new form? Then make the archives anew with tests/fixtures/checkpoints/generate.py."""
    assert shape(fresh / kind) == shape(unpack(kind, tmp_path).parent)


def test_the_index_says_what_is_archived(tmp_path: Path) -> None:
    assert kinds() == list(KINDS)
    for kind, entry in index().items():
        found = describe(kind, unpack(kind, tmp_path).parent) | {"spark": entry["spark"]}
        assert json.loads(json.dumps(found)) == entry, kind
