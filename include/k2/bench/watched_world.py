"""What `./k2 bench watch` has watched: `python -m k2.bench.watched_world SETTINGS`, a process of its own.

Every stream has an HTTP endpoint on a port of its own that answers as a driver does, a checkpoint on disk that gains a
batch each period (and loses one, as Spark keeps a hundred), and a table whose pointer in the catalog moves with a new
metadata file for a share of the streams. The host agent's own application serves them, over drivers that are told.

Lines on standard input are commands: `die STREAM` ends a driver and prints when.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import psycopg
import uvicorn
from pydantic import BaseModel

from k2.checkpoints.reader import read_tail
from k2.launchers.agent import application, listen
from k2.registry.observed import Checkpoint, Driver, DriverState, QueryStatus
from k2.registry.runtime import Runtime

KEPT_BATCHES = 100
SNAPSHOTS = 100
STARTED = datetime.now(UTC)


class Settings(BaseModel):
    """One world: which streams, how often they commit, and how many of their tables move in a period."""

    runtime: Runtime
    streams: list[str]
    period_seconds: float
    moving_share: float


def batch_files(checkpoint: Path, batch: int, snapshot: int) -> None:
    """What Spark leaves of one batch: each file written beside its place and renamed into it, with its checksum file."""
    offset = {"version": 1, "snapshot_id": snapshot, "position": 1, "scan_all_files": False}
    log = {"batchWatermarkMs": 0, "batchTimestampMs": 1, "conf": {"spark.sql.shuffle.partitions": "1"}}
    for folder, text in (("offsets", f"v1\n{json.dumps(log)}\n{json.dumps(offset)}"), ("commits", 'v1\n{"nextBatchWatermarkMs":0}')):
        for name, content in ((f".{batch}.crc", "crc"), (str(batch), text)):
            partial = checkpoint / folder / f".{name}.tmp"
            partial.write_text(content)
            partial.rename(checkpoint / folder / name)


def lay_out_checkpoint(checkpoint: Path, snapshot: int) -> None:
    """A checkpoint with its last hundred batches; older ones are links to one file, for only their names are ever read."""
    for folder in ("offsets", "commits"):
        (checkpoint / folder).mkdir(parents=True)
    (checkpoint / "metadata").write_text('{"id":"8a6d0f0e-61f3-4e6a-9a58-8f3f6f6b7c11"}')
    batch_files(checkpoint, 0, snapshot)
    for folder in ("offsets", "commits"):
        for batch in range(1, KEPT_BATCHES - 1):
            os.link(checkpoint / folder / "0", checkpoint / folder / str(batch))
            os.link(checkpoint / folder / ".0.crc", checkpoint / folder / f".{batch}.crc")
    batch_files(checkpoint, KEPT_BATCHES - 1, snapshot)


def committed_snapshot(tail: Checkpoint) -> int:
    assert tail.committed is not None
    return int(tail.committed["snapshot_id"])


def metadata(newest: int) -> str:
    """A table's metadata with its last hundred snapshots."""
    now = int(time.time() * 1000)
    summary = {"operation": "append", "added-data-files": "1", "added-records": "100", "added-files-size": "4096", "total-records": "100000"}
    stamps = {"spark.app.id": "local-1", "spark.sql.streaming.queryId": "8a6d0f0e-61f3-4e6a-9a58-8f3f6f6b7c11", "fence-epoch": "1"}
    snapshots = [
        {"sequence-number": number, "snapshot-id": number, "timestamp-ms": now - 10_000 * (newest - number), "summary": summary | stamps, "schema-id": 0}
        | {"manifest-list": f"file:/warehouse/table/metadata/snap-{number}.avro"}
        | ({"parent-snapshot-id": number - 1} if number > newest - SNAPSHOTS + 1 else {})
        for number in range(newest - SNAPSHOTS + 1, newest + 1)
    ]
    log = [{"timestamp-ms": s["timestamp-ms"], "snapshot-id": s["snapshot-id"]} for s in snapshots]
    return json.dumps({"format-version": 2, "current-snapshot-id": newest, "snapshots": snapshots, "snapshot-log": log})


class World:
    """The streams of one world and what happens to them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runtime = settings.runtime
        self.version = 1
        self._changed = asyncio.Event()
        tails = {name: read_tail(self.runtime.checkpoint(name)) for name in settings.streams}
        self._batch = {name: tail.last_commit_batch or 0 for name, tail in tails.items()}
        self._snapshot = {name: committed_snapshot(tail) for name, tail in tails.items()}
        self._event_at = dict.fromkeys(settings.streams, STARTED)
        self._drivers: dict[str, Driver] = {}
        self._sql = psycopg.connect(**self.runtime.conninfo("control"), autocommit=True)  # type: ignore[arg-type]

    # What the agent's application asks of its fleet.

    def drivers(self) -> dict[str, list[Driver]]:
        return {name: [driver] for name, driver in self._drivers.items()}

    async def changed(self, version: int, wait_seconds: float) -> None:
        if version == self.version:
            try:
                await asyncio.wait_for(self._changed.wait(), wait_seconds)
            except TimeoutError:
                return

    spares = SimpleNamespace(close=lambda: None, keep=lambda: asyncio.sleep(3600))

    def adopt(self) -> None:
        pass

    def notice(self) -> None:
        pass

    async def measure(self) -> None:
        """Each driver's memory is measured every ten seconds, as a real agent's."""
        while True:
            for number, (name, driver) in enumerate(self._drivers.items()):
                self._drivers[name] = replace(driver, memory_mb=600.0 + (time.monotonic() + number) % 50)
            await asyncio.sleep(10)

    async def serve(self) -> None:
        """Everything, until the process is ended."""
        for number, name in enumerate(self.settings.streams):
            server = await asyncio.get_running_loop().create_server(lambda name=name: _Endpoint(self, name), "127.0.0.1", 0, backlog=5)
            port = server.sockets[0].getsockname()[1]
            self._drivers[name] = Driver(DriverState.RUNNING, 1, 100_000 + number, STARTED, memory_mb=600.0, status_url=f"http://127.0.0.1:{port}/status")
        chores = [asyncio.create_task(self._advance()), asyncio.create_task(self._obey())]
        config = uvicorn.Config(application(self), lifespan="on", access_log=False, log_config=None)  # type: ignore[arg-type]
        print("up", flush=True)
        await uvicorn.Server(config).serve(sockets=[listen(self.runtime.agent_socket)])
        for chore in chores:
            chore.cancel()

    def word(self, name: str) -> bytes:
        """A driver's answer to GET /status, whole."""
        batch = self._batch[name]
        said = QueryStatus(name, 1, "8a6d0f0e-61f3-4e6a-9a58-8f3f6f6b7c11", "r", batch, "Waiting for next trigger", "running", None, None, 0.4, 100, 0.9, 0)
        body = json.dumps(vars(said) | {"last_event_at": self._event_at[name].isoformat(), "tasks_at": self._event_at[name].isoformat()}).encode()
        head = f"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def _advance(self) -> None:
        """Every stream commits once a period, one after the other."""
        names, period = self.settings.streams, self.settings.period_seconds
        begun, done = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - begun) / period * len(names))
            for turn in range(done, due):
                self._commit(names[turn % len(names)], turn)
            done = due
            await asyncio.sleep(0.02)

    def _commit(self, name: str, turn: int) -> None:
        checkpoint = self.runtime.checkpoint(name)
        # Spread over the names, and other ones in the next period.
        if (turn * 0.618034 + turn // len(self.settings.streams) * 0.37) % 1 < self.settings.moving_share:
            self._snapshot[name] += 1
            point(self._sql, self.runtime, name, self._snapshot[name])
        batch = self._batch[name] = self._batch[name] + 1
        batch_files(checkpoint, batch, self._snapshot[name])
        self._event_at[name] = datetime.now(UTC)
        for folder in ("offsets", "commits"):
            for old in (str(batch - KEPT_BATCHES), f".{batch - KEPT_BATCHES}.crc"):
                (checkpoint / folder / old).unlink()

    async def _obey(self) -> None:
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := (await lines.readline()).decode().split():
            _, name = line
            self._drivers[name] = replace(self._drivers[name], state=DriverState.EXITED, exit_code=-9, ended_at=datetime.now(UTC), status_url=None)
            print(json.dumps({"died": name, "at": time.time()}), flush=True)
            self.version += 1
            self._changed.set()
            self._changed = asyncio.Event()


class _Endpoint(asyncio.Protocol):
    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._world.word(self._name))  # type: ignore[attr-defined]
        self._transport.close()


def table(name: str) -> str:
    return f"table_{name}"


def point(connection: psycopg.Connection, runtime: Runtime, name: str, snapshot: int) -> None:
    """A new metadata file of a stream's table, and the catalog's pointer to it."""
    folder = runtime.checkpoints.parent / "tables" / table(name)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{snapshot:05d}.metadata.json"
    file.write_text(metadata(snapshot))
    (folder / f"{snapshot - 2:05d}.metadata.json").unlink(missing_ok=True)
    catalog = runtime.platform.catalog
    connection.execute(
        "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type) VALUES (%s, %s, %s, %s, 'TABLE')"
        " ON CONFLICT (catalog_name, table_namespace, table_name) DO UPDATE SET metadata_location = excluded.metadata_location",
        (catalog.name, catalog.namespace, table(name), f"file:{file}"),
    )


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())

    async def serve() -> None:
        await World(settings).serve()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
