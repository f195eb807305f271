"""A warm spare with real Spark: what it leaves behind, and what it becomes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from streams_lab import START_SECONDS, Lab
from streams_records import NOW_MS, encode, kraken, schema_text
from streams_registry import register_schema

from k2.registry.observed import ExitCode
from k2.registry.runtime import Runtime


class Spare:
    """One spare process, and the agent's end of its line."""

    def __init__(self, lab: Lab, name: str, **runtime: str) -> None:
        self.lab, self.name = lab, name
        self.folder = lab.runtime.spares / name
        self.folder.mkdir(parents=True)
        self.line, theirs = socket.socketpair()
        self.log = self.folder.with_suffix(".log")
        environment = {
            **os.environ,
            "K2_RUNTIME": str(self._runtime_file(runtime)),
            "PYTHONPATH": str(lab.runtime.tree / "include"),
        }
        command = [sys.executable, str(lab.runtime.tree / "spark_jobs" / "spare.py"), "--name", name]
        with theirs, self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=theirs, stdout=out, stderr=out, env=environment, cwd=lab.runtime.tree, start_new_session=True)

    def _runtime_file(self, changes: dict[str, str]) -> Path:
        """The lab's, or one of its own beside it."""
        if not changes:
            return self.lab.runtime_file
        file = self.lab.runtime_file.with_name(f"runtime-{self.name}.json")
        file.write_text(self.lab.runtime.model_copy(update=changes).model_dump_json())
        return file

    def wait_warm(self) -> None:
        self.line.settimeout(START_SECONDS)
        assert self.line.recv(64) == b"warm\n", self.log.read_text()[-4000:]

    def become(self, stream: str, fence: int) -> None:
        self.line.sendall(json.dumps({"stream": stream, "fence": fence}).encode() + b"\n")

    def leftovers(self) -> list[tuple[str, ...]]:
        """What the spares' catalog holds of it."""
        with psycopg.connect(**self.lab.runtime.conninfo("spare")) as connection:
            tables = connection.execute("SELECT table_name FROM k2_spare.iceberg_tables WHERE catalog_name = %s", (f"spare_{self.name}",)).fetchall()
            spaces = "SELECT namespace FROM k2_spare.iceberg_namespace_properties WHERE catalog_name = %s"
            return tables + connection.execute(spaces, (f"spare_{self.name}",)).fetchall()


@contextmanager
def spare(lab: Lab, name: str, **runtime: str) -> Iterator[Spare]:
    made = Spare(lab, name, **runtime)
    try:
        yield made
    finally:
        made.line.close()
        if made.process.poll() is None:
            os.killpg(made.process.pid, signal.SIGKILL)
            made.process.wait()


@pytest.fixture(scope="module")
def schema_id(lab: Lab, base_stack: Runtime) -> int:
    """Records in Kafka, as a spare finds them: good ones of one exchange, bad ones of the other."""
    lab.produce("binance", [b"1", b"2", b"3"], NOW_MS)
    found = register_schema(base_stack.schema_registry, lab.platform.exchanges["kraken"].subject, schema_text("kraken"))
    lab.produce("kraken", [encode(found, schema_text("kraken"), kraken(trade_id=i)) for i in range(50)], NOW_MS)
    return found


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("schema_id")
def test_a_spare_rehearses_apart_and_becomes_a_stream(lab: Lab) -> None:
    """Warm, it has left nothing in any catalog and no checkpoint; told its stream, it commits what Kafka holds and drains."""
    bronze = f"bronze_{lab.name}_kraken"
    with spare(lab, "aa1") as first:
        first.wait_warm()
        assert f"rehearsed {bronze}" in first.log.read_text()
        assert f"rehearsed silver_{lab.name}_kraken" in first.log.read_text()
        assert first.leftovers() == [], first.log.read_text()[-6000:]
        assert not lab.checkpoint(bronze).exists()
        assert lab.table(bronze) is None
        first.become(bronze, lab.raise_fence(bronze))
        expected = [record[:2] for record in lab.records("kraken")]
        lab.wait_until(lambda: sorted((row["partition"], row["offset"]) for row in lab.rows(bronze)) == expected, "the spare commits", 60)
        lab.wait_until(lambda: lab.is_settled(bronze), "every planned batch is committed")
        os.kill(first.process.pid, signal.SIGTERM)
        assert first.process.wait(60) == ExitCode.STOPPED, first.log.read_text()[-4000:]
    assert json.loads((lab.runtime.driver_dir(bronze, 1) / "exit.json").read_text())["message"].startswith("drained")


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("schema_id")
def test_a_spare_with_an_old_fence_is_refused(lab: Lab) -> None:
    """It has no right of its own: a fence raised in the meantime sends it away with 86."""
    stream = f"bronze_{lab.name}_binance"
    with spare(lab, "aa2") as late:
        late.wait_warm()
        old = lab.raise_fence(stream)
        lab.raise_fence(stream)
        late.become(stream, old)
        assert late.process.wait(START_SECONDS) == ExitCode.FENCED, late.log.read_text()[-4000:]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_broker_that_is_silent_keeps_no_spare_from_being_warm(lab: Lab) -> None:
    """Its query hangs and does not end, and is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as silent, spare(lab, "aa4", kafka=f"127.0.0.1:{silent.getsockname()[1]}") as blind:
        blind.wait_warm()
        assert "its query has not ended after 5 s" in blind.log.read_text()
        assert blind.leftovers() == []


def test_a_spare_ends_with_its_line(lab: Lab) -> None:
    """A line that closes, as when the host agent is killed, ends it and its JVM, however far it is."""
    with spare(lab, "aa3") as orphan:
        lab.wait_until(lambda: len(_session(orphan.process.pid)) > 1, "its JVM runs", 30)
        orphan.line.close()
        orphan.process.wait(20)
        lab.wait_until(lambda: not _session(orphan.process.pid), "its JVM ends too", 20)


def test_a_spares_role_sees_no_stream(base_stack: Runtime) -> None:
    """It may not read, and so not change, the catalog or the state of the streams."""
    with psycopg.connect(**base_stack.conninfo("spare"), autocommit=True) as connection:
        for table in ("public.iceberg_tables", "k2.streams", "k2.launches"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT 1 FROM {table}")


def _session(leader: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
        except ProcessLookupError:
            continue
    return found
