"""Streams of a test's own on the shared stack: topics, tables, checkpoints, drivers, and what can be done to them."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg.rows import dict_row
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError

from k2.checkpoints.reader import first_commit_after, read_tail
from k2.registry.files import REGISTRY
from k2.registry.platform import Platform, parse_platform
from k2.registry.runtime import Runtime
from k2.state import streams
from k2.state.database import connect, register

PARTITIONS = 3
START_SECONDS = 300
"""A driver starts in 10 s on an idle machine; a run of all tests is not one."""


class RunningDriver:
    """One driver process."""

    def __init__(self, lab: Lab, stream: str, fence: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.stream = stream
        self.fence = fence
        self.process = process
        self.log = log
        self.directory = lab.runtime.run / "drivers" / f"{stream}#{fence}"

    @property
    def jvm(self) -> int:
        """Process id of its JVM, once there is one."""
        found = [child.pid for child in psutil.Process(self.process.pid).children(recursive=True) if child.name() == "java"]
        return found[0] if found else 0

    def get(self, path: str) -> bytes:
        port = json.loads((self.directory / "ready.json").read_text())["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read()

    def status(self) -> dict[str, Any]:
        return json.loads(self.get("/status")) if (self.directory / "ready.json").exists() else {}

    def exit_record(self) -> dict[str, Any]:
        return json.loads((self.directory / "exit.json").read_text())

    def signal(self, number: signal.Signals) -> None:
        """To Python and JVM, as a frozen or killed container would have it."""
        for pid in (self.process.pid, self.jvm):
            if pid:
                os.kill(pid, number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()


class Lab:
    """One group of streams. Each exchange has its topic, Bronze, Silver and streams; the group shares a DLQ table."""

    def __init__(self, base: Runtime, folder: Path, name: str, registry: str | None = None) -> None:
        self.name = name
        self._drivers: list[RunningDriver] = []
        declared = yaml.safe_load(REGISTRY.read_text())
        declared["tables"] = {"dlq_" + name: {"layer": "dlq", "target_file_size_mb": 32}}
        declared["streams"] = {}
        for exchange, settings in declared["exchanges"].items():
            settings.update(topic=f"{name}.{exchange}", partitions=PARTITIONS)
            bronze, silver = f"bronze_{name}_{exchange}", f"silver_{name}_{exchange}"
            declared["tables"] |= {bronze: {"layer": "bronze", "target_file_size_mb": 64}, silver: {"layer": "silver", "target_file_size_mb": 64}}
            common = {"exchange": exchange, "trigger_seconds": 1, "max_rows_per_trigger": 10000, "heap_mb": 512, "memory_mb": 1300}
            declared["streams"] |= {
                bronze: {"type": "bronze", "writes": [bronze], "checkpoint": bronze, **common},
                silver: {"type": "silver", "reads": bronze, "writes": [silver, "dlq_" + name], "checkpoint": silver, **common},
            }
        folder.mkdir()
        self.platform_file = folder / "platform.yaml"
        self.platform_file.write_text(yaml.safe_dump(declared))
        self.platform: Platform = parse_platform(self.platform_file)
        self.runtime = base.model_copy(
            update={
                "profile": "standard",
                "registry": self.platform_file,
                "home": folder,
                "checkpoints": folder / "checkpoints",
                "schema_registry": registry or base.schema_registry,
            }
        )
        (folder / "secrets").symlink_to(base.secrets)
        self.runtime_file = folder / "runtime.json"
        self.runtime_file.write_text(self.runtime.model_dump_json())
        register(self.runtime, self.platform)
        self.kafka = AdminClient({"bootstrap.servers": self.runtime.kafka})
        topics = [NewTopic(e.topic, PARTITIONS, 1) for e in self.platform.exchanges.values()]
        for created in self.kafka.create_topics(topics).values():
            created.result()

    # Drivers

    def start(self, stream: str, *wrapper: str) -> RunningDriver:
        """Raise the fence and launch a driver, by way of a wrapper script with its arguments if one is given."""
        return self.launch(stream, self.raise_fence(stream), *wrapper)

    def launch(self, stream: str, fence: int, *wrapper: str) -> RunningDriver:
        """Launch a driver with a fence that was raised already."""
        directory = self.runtime.run / "drivers" / f"{stream}#{fence}"
        directory.mkdir(parents=True)
        log = directory / "log"
        script = self.runtime.tree / "spark_jobs" / f"{self.platform.streams[stream].type}.py"
        command = [sys.executable, *(wrapper or [str(script)]), "--stream", stream, "--fence", str(fence)]
        environment = {
            **os.environ,
            "K2_RUNTIME": str(self.runtime_file),
            "PYTHONPATH": str(self.runtime.tree / "include"),
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.runtime.tree, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )
        driver = RunningDriver(self, stream, fence, process, log)
        self._drivers.append(driver)
        return driver

    def raise_fence(self, stream: str) -> int:
        with connect(self.runtime, "control") as connection:
            wanted = streams.wanted(connection, stream)
            return streams.raise_fence(connection, stream, seen=wanted.fence, generation=wanted.generation, reason="test", detected_at=datetime.now(UTC))

    def seen(self, driver: RunningDriver) -> None:
        """Record of a driver's start what the watchdog would: its first commit, and the checkpoint's identity."""
        path = self.checkpoint(driver.stream)
        with connect(self.runtime, "control") as connection:
            wanted = streams.wanted(connection, driver.stream)
            first = first_commit_after(path, wanted.intent_at)  # type: ignore[arg-type]
            assert first is not None
            streams.first_commit(connection, driver.stream, driver.fence, first[1], first[0])
            tail = read_tail(path)
            streams.know(connection, {driver.stream: (tail.query_id, tail.last_commit_batch, driver.fence)})  # type: ignore[arg-type]

    def wait_until(
        self, condition: Callable[[], Any], what: str, seconds: float = START_SECONDS, alive: RunningDriver | None = None, pause: float = 0.1
    ) -> Any:
        """Wait for a condition. Fails at the deadline, or as soon as a driver that should live is dead."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if alive is not None and alive.process.poll() is not None:
                raise AssertionError(f"{alive.stream}#{alive.fence} left with {alive.process.returncode} before: {what}\n{alive.log.read_text()[-4000:]}")
            if time.monotonic() > deadline:
                logs = "\n".join(f"== {d.stream}#{d.fence}\n{d.log.read_text()[-2000:]}" for d in self._drivers if d.process.poll() is None)
                raise AssertionError(f"not within {seconds} s: {what}\n{logs}")
            time.sleep(pause)
        return found

    def wait_exit(self, driver: RunningDriver, seconds: float = START_SECONDS) -> int:
        try:
            return driver.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{driver.stream}#{driver.fence} still runs after {seconds} s\n{driver.log.read_text()[-4000:]}") from None

    def checkpoint(self, stream: str) -> Path:
        return self.runtime.checkpoints / self.platform.streams[stream].checkpoint

    def last_commit(self, stream: str) -> int:
        """Number of the last committed batch, -1 before the first."""
        last = read_tail(self.checkpoint(stream)).last_commit_batch
        return -1 if last is None else last

    def is_settled(self, stream: str) -> bool:
        """Every planned batch is in the commit log."""
        return self.last_plan(stream) == self.last_commit(stream) >= 0

    def last_plan(self, stream: str) -> int:
        last = read_tail(self.checkpoint(stream)).last_offset_batch
        return -1 if last is None else last

    # Kafka

    def produce(self, exchange: str, values: list[bytes | None], timestamp_ms: int) -> None:
        """Produce values in order over the partitions, with a key and a header each."""
        producer = Producer({"bootstrap.servers": self.runtime.kafka})
        for number, value in enumerate(values):
            producer.produce(
                self.platform.exchanges[exchange].topic,
                value,
                key=f"key {number}".encode(),
                partition=number % PARTITIONS,
                timestamp=timestamp_ms,
                headers=[("number", str(number).encode()), ("empty", None)],
            )
        assert producer.flush(20) == 0

    def records(self, exchange: str) -> list[tuple[Any, ...]]:
        """All that Kafka holds: (partition, offset, key, value, headers, timestamp in ms), in order."""
        topic = self.platform.exchanges[exchange].topic
        consumer = Consumer({"bootstrap.servers": self.runtime.kafka, "group.id": "test", "enable.auto.commit": False, "enable.partition.eof": True})
        consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        found, ended = [], 0
        while ended < PARTITIONS:
            message = consumer.poll(10)
            assert message is not None, "Kafka gave no answer for 10 s"
            if message.error():
                ended += 1
            else:
                found.append((message.partition(), message.offset(), message.key(), message.value(), message.headers(), message.timestamp()[1]))
        consumer.close()
        return sorted(found, key=lambda r: r[:2])

    # Iceberg and its catalog

    def table(self, name: str) -> Any:
        """The pyiceberg table, or None."""
        try:
            return self._catalog.load_table((self.platform.catalog.namespace, name))
        except NoSuchTableError:
            return None

    @functools.cached_property
    def _catalog(self) -> SqlCatalog:
        uri = f"postgresql+psycopg2://k2_control:{self.runtime.password('control')}@{self.runtime.postgres_host}:{self.runtime.postgres_port}/lakehouse"
        return SqlCatalog(self.platform.catalog.name, uri=uri, warehouse=self.runtime.warehouse, init_catalog_tables="false")

    def rows(self, name: str) -> list[dict[str, Any]]:
        table = self.table(name)
        return table.scan().to_arrow().to_pylist() if table is not None else []

    def append_to_bronze(self, exchange: str, values: list[bytes | None], timestamp_ms: int, first_offset: int = 0) -> None:
        """Append records to the exchange's Bronze table without a driver, as one data file."""
        table = self.table(f"bronze_{self.name}_{exchange}")
        now = datetime.now(UTC)
        rows = [
            {
                "raw_bytes": value,
                "topic": self.platform.exchanges[exchange].topic,
                "partition": number % PARTITIONS,
                "offset": first_offset + number // PARTITIONS,
                "kafka_timestamp": datetime.fromtimestamp(timestamp_ms / 1000, UTC),
                "ingestion_timestamp": now,
                "ingestion_date": now.date(),
            }
            for number, value in enumerate(values)
        ]
        plain = pa.schema([pa.field(f.name, f.type, f.nullable) for f in table.schema().as_arrow() if f.name != "headers"])
        file = self.runtime.home / f"{exchange}-{uuid.uuid4().hex}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=plain), file)
        table.add_files([file.as_uri()])

    def positions(self, *tables: str) -> list[tuple[int, int]]:
        """Kafka partition and offset of every row of Silver or DLQ tables, in order."""
        return sorted((row["kafka_partition"], row["kafka_offset"]) for name in tables for row in self.rows(name))

    def summaries(self, name: str) -> list[dict[str, str]]:
        """Snapshot summaries, oldest first."""
        table = self.table(name)
        return [dict(s.summary.additional_properties) for s in sorted(table.snapshots(), key=lambda s: s.sequence_number)] if table is not None else []

    @contextmanager
    def commits_blocked(self, table: str) -> Iterator[Callable[[], bool]]:
        """Hold the table's row in the catalog: a commit to it waits inside PostgreSQL. Yields a function that tells whether one waits."""
        with self.admin() as holder:
            holder.execute("BEGIN")
            row = holder.execute("SELECT 1 FROM iceberg_tables WHERE table_name = %s FOR UPDATE", (table,)).fetchone()
            assert row is not None, f"{table} is not in the catalog"
            with self.admin() as watcher:
                yield lambda: bool(
                    watcher.execute(
                        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'k2_writer' AND query LIKE 'UPDATE%%'"
                    ).fetchone()
                )
            holder.execute("ROLLBACK")

    def admin(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(**self.runtime.conninfo("admin"), row_factory=dict_row, autocommit=True)  # type: ignore[arg-type]

    def close(self) -> None:
        self._catalog.engine.dispose()
        for driver in self._drivers:
            if driver.process.poll() is None:
                jvm = driver.jvm
                driver.process.kill()
                driver.process.wait()
                if jvm and psutil.pid_exists(jvm):
                    os.kill(jvm, signal.SIGKILL)
        for deleted in self.kafka.delete_topics([e.topic for e in self.platform.exchanges.values()]).values():
            deleted.exception()
