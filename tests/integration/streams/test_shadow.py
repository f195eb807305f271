"""Shadows with real Spark: the same plan is accepted, others are refused, and nothing is touched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from streams_lab import Lab, RunningDriver
from streams_records import NOW_MS, encode, kraken, schema_text
from streams_registry import register_schema

from k2.checkpoints.reader import read_tail
from k2.registry.runtime import Runtime
from k2.registry.shadow import Outcome

EXCHANGE = "kraken"
pytestmark = pytest.mark.full

TWO_SOURCES = """
import sys
sys.path.insert(0, "spark_jobs")
import bronze, shadow
one = bronze.records
bronze.records = lambda driver: one(driver).union(one(driver))
shadow.main()
"""


@pytest.fixture(scope="module")
def running(lab: Lab, base_stack: Runtime) -> dict[str, RunningDriver]:
    """A Bronze and a Silver stream, each with several committed batches and nothing left to read."""
    schema = register_schema(base_stack.schema_registry, lab.platform.exchanges[EXCHANGE].subject, schema_text(EXCHANGE))
    names = {layer: f"{layer}_{lab.name}_{EXCHANGE}" for layer in ("bronze", "silver")}
    drivers: dict[str, RunningDriver] = {}
    for part in range(3):
        lab.produce(EXCHANGE, [encode(schema, schema_text(EXCHANGE), kraken(trade_id=100 * part + i)) for i in range(20)], NOW_MS)
        for layer, name in names.items():
            drivers[layer] = drivers.get(layer) or lab.start(name)
            lab.wait_until(lambda name=name, part=part: lab.is_settled(name) and len(lab.rows(name)) == 20 * (part + 1), f"part {part} is in {name}", pause=0.5)
    return drivers


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.rglob("*")) if file.is_file()}


def tried(lab: Lab, stream: str, *, query: str | None = None, code: str | None = None, **changes: Any) -> dict[str, Any]:
    """Run a shadow with changes to the registry (dotted path: value). Returns its result, having seen that nothing else changed."""
    declared = yaml.safe_load(lab.platform_file.read_text())
    for path, value in changes.items():
        *parents, last = path.split("/")
        place = declared
        for part in parents:
            place = place[part]
        place[last] = value
    folder = lab.runtime.home / f"shadow-{len(list(lab.runtime.home.glob('shadow-*')))}"
    folder.mkdir()
    (folder / "platform.yaml").write_text(yaml.safe_dump(declared))
    runtime = Runtime.model_validate_json(lab.runtime_file.read_text())
    (folder / "runtime.json").write_text(runtime.model_copy(update={"registry": folder / "platform.yaml"}).model_dump_json())
    environment = {**os.environ, "K2_RUNTIME": str(folder / "runtime.json"), "PYTHONPATH": str(lab.runtime.tree / "include")}
    command = [sys.executable, *(["-c", code] if code else [str(lab.runtime.tree / "spark_jobs" / "shadow.py")])]
    arguments = ["--stream", stream, "--query", query or str(read_tail(lab.checkpoint(stream)).query_id), "--folder", str(folder)]
    before, snapshots = content(lab.checkpoint(stream)), len(lab.summaries(stream))
    ours, theirs = socket.socketpair()
    with ours, (folder / "log").open("wb") as log:
        with theirs:
            process = subprocess.Popen(
                [*command, *arguments], stdin=theirs, stdout=log, stderr=log, env=environment, cwd=lab.runtime.tree, start_new_session=True
            )
        process.wait(150)
    assert (folder / "result.json").exists(), (folder / "log").read_text()[-4000:]
    assert content(lab.checkpoint(stream)) == before, "the live checkpoint was touched"
    assert len(lab.summaries(stream)) == snapshots, "something was committed"
    return json.loads((folder / "result.json").read_text())


@pytest.mark.timeout(600)
def test_what_fits_is_accepted(lab: Lab, running: dict[str, RunningDriver]) -> None:
    """The code as it is, and with another trigger: real rows go through the plan of an idle stream whose driver runs on."""
    for layer in ("bronze", "silver"):
        stream = running[layer].stream
        found = tried(lab, stream, **{f"streams/{stream}/trigger_seconds": 7})
        assert found["outcome"] == Outcome.COMPATIBLE and found["rows"] > 0, found
        assert running[layer].process.poll() is None


@pytest.mark.timeout(600)
def test_what_does_not_fit_is_refused_with_spark_s_reason(lab: Lab, running: dict[str, RunningDriver]) -> None:
    """Another topic, a second source, another Bronze table, another checkpoint: each refused, with a word that tells why."""
    bronze, silver = running["bronze"].stream, running["silver"].stream
    other = lab.platform.exchanges["binance"].topic
    topics = tried(lab, bronze, **{f"exchanges/{EXCHANGE}/topic": other, "exchanges/binance/topic": f"{other}.old"})
    assert topics["outcome"] == Outcome.INCOMPATIBLE and lab.platform.exchanges[EXCHANGE].topic in topics["because"], topics
    sources = tried(lab, bronze, code=TWO_SOURCES)
    assert sources["outcome"] == Outcome.INCOMPATIBLE and "source" in sources["because"], sources
    folder = tried(lab, bronze, **{f"streams/{bronze}/checkpoint": "another"})
    assert folder["outcome"] == Outcome.INCOMPATIBLE and "'another' holds no query" in folder["because"], folder
    missing = tried(lab, silver, **{"tables/elsewhere": {"layer": "bronze", "target_file_size_mb": 64}, f"streams/{silver}/reads": "elsewhere"})
    assert missing["outcome"] == Outcome.INCOMPATIBLE and "tables.elsewhere" in missing["because"], missing
    assert all(driver.process.poll() is None for driver in running.values())


@pytest.mark.timeout(300)
def test_what_cannot_be_tried_is_no_yes(lab: Lab, running: dict[str, RunningDriver]) -> None:
    """Kafka out of reach says nothing of the code."""
    stream = running["bronze"].stream
    away = lab.runtime.model_copy(update={"kafka": "127.0.0.1:1"})
    kept = lab.runtime_file.read_text()
    lab.runtime_file.write_text(away.model_dump_json())
    try:
        found = tried(lab, stream)
    finally:
        lab.runtime_file.write_text(kept)
    assert found["outcome"] == Outcome.UNKNOWN, found
