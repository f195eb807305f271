"""A host agent over a tree whose only job is a small script: no Spark, no database."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from k2 import watchdog
from k2.airflow import control
from k2.launchers import records, retention, sessions
from k2.launchers.client import AgentClient, AgentUnavailable
from k2.launchers.spares import read_spares
from k2.probes import iceberg, kafka
from k2.processes import ProcessId
from k2.registry.files import REGISTRY
from k2.registry.history import Chain
from k2.registry.observed import Decision, Driver, DriverState, Verdict
from k2.registry.runtime import Runtime
from k2.registry.wishes import Wish
from k2.state import database, streams

from ...stacks import absent
from ...tables import kafka_timestamp

STREAM = "bronze_binance"
INCLUDE = Path(__file__).resolve().parents[3] / "include"

JOB = """
import json, os, signal, subprocess, sys, threading, time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
stream, fence = sys.argv[2], int(sys.argv[4])
folder = Path(os.environ["K2_RUNTIME"]).parent / "run" / "drivers" / f"{stream}#{fence}"
mode = (Path.cwd() / "mode").read_text().split()
with (Path.cwd() / "starts").open("a") as starts:
    starts.write(f"{stream}#{fence} {os.getpid()}\\n")
def leave(*_):
    (folder / "exit.json").write_text(json.dumps({"code": 0, "class": "Stopped", "message": "asked to stop"}))
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in mode else leave)
if "child" in mode:
    subprocess.Popen([sys.executable, "-c", "import os, time; os.setpgid(0, 0); time.sleep(300)"])
if "exit" in mode:
    (folder / "exit.json").write_text(json.dumps({"code": 70, "class": "QueryFailed", "message": "the source is gone"}))
    sys.exit(70)
if f"poison-{stream}" in mode:
    blamed = {"fingerprint": "ArithmeticException-1", "batch": 1, "records": {"trades": {"2": [[40, 40]]}}, "narrowed": True}
    (folder / "exit.json").write_text(json.dumps({"code": 70, "class": "query_failed", "message": "division by zero", "failure": blamed}))
    sys.exit(70)
if "lost-kafka" in mode and stream.startswith("bronze"):
    failure = {"fingerprint": "TimeoutException-1", "dependency": "kafka"}
    (folder / "exit.json").write_text(json.dumps({"code": 75, "class": "dependency", "message": "Timed out waiting for a node", "failure": failure}))
    sys.exit(75)
class Word(BaseHTTPRequestHandler):
    def do_GET(self):
        quiet = "quiet" in (Path.cwd() / "mode").read_text().split()
        said = {"stream": stream, "fence": fence, "query_id": "q", "run_id": "r", "batch_id": 0, "message": "Waiting for next trigger", "phase": "running",
                "waits_for": None, "batch_seconds": 0.1, "input_rows": 1,
                "last_event_at": (datetime.now(UTC) - timedelta(seconds=1000 * quiet)).isoformat()}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Word)
threading.Thread(target=server.serve_forever, daemon=True).start()
(folder / "ready.json").write_text(json.dumps({"port": server.server_port}))
while True:
    time.sleep(0.05)
"""

SPARE = (
    """
import json, os, socket, sys, time
from pathlib import Path
words = (Path.cwd() / "mode").read_text().split()
with (Path.cwd() / "spares").open("a") as begun:
    begun.write(f"{os.getpid()}\\n")
if "broken-spare" in words:
    sys.exit(1)
line = socket.socket(fileno=0)
print("I am a spare", flush=True)
if "slow-spare" not in words:
    line.sendall(b"warm\\n")
said = line.recv(4096)
if not said:
    sys.exit(0)
told = json.loads(said)
sys.argv = ["x", "--stream", told["stream"], "--fence", str(told["fence"])]
"""
    + JOB
)


SHADOW = """
import json, os, socket, sys, time
from pathlib import Path
words = (Path.cwd() / "mode").read_text().split()
said = dict(zip(sys.argv[1::2], sys.argv[2::2]))
(Path.cwd() / "shadow").write_text(str(os.getpid()))
if "slow-shadow" in words:
    socket.socket(fileno=0).recv(1)  # until the line closes
    (Path.cwd() / "shadow").write_text("ended with its line")
    sys.exit(1)
if "deaf-shadow" in words:
    time.sleep(300)
if "silent-shadow" not in words:
    outcome = "incompatible" if "bad-shadow" in words else "compatible"
    result = {"stream": said["--stream"], "outcome": outcome, "because": f"tried {said['--query']}", "rows": 5}
    (Path(said["--folder"]) / "result.json").write_text(json.dumps(result))
if "change" in words:
    (Path.cwd() / "spark_jobs" / "new.py").write_text("")
"""


class Home:
    """One home with its agent. `mode`: words that jobs and spares obey (deaf, child, exit, poison-STREAM, lost-kafka, quiet, slow-spare, broken-spare)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spares(0)
        (folder / "spark_jobs").mkdir()
        for kind in ("bronze", "silver"):
            (folder / "spark_jobs" / f"{kind}.py").write_text(JOB)
        (folder / "spark_jobs" / "spare.py").write_text(SPARE)
        (folder / "spark_jobs" / "shadow.py").write_text(SHADOW)
        self.mode("")
        self.runtime = absent(folder, registry=folder / "platform.yaml")
        (folder / "runtime.json").write_text(self.runtime.model_dump_json())
        self.client = AgentClient(self.runtime)
        self.process: subprocess.Popen[bytes] | None = None

    def mode(self, words: str) -> None:
        (self.folder / "mode").write_text(words)

    def spares(self, count: int) -> None:
        """How many the agent that is started next keeps."""
        declared = yaml.safe_load(REGISTRY.read_text())
        declared["spares"]["count"] = count
        (self.folder / "platform.yaml").write_text(yaml.safe_dump(declared))

    def spares_begun(self) -> list[int]:
        """The pid of every spare that really began."""
        path = self.folder / "spares"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_warm(self) -> ProcessId:
        """The one spare, once it is warm."""
        self.wait_until(lambda: [warm for _, warm in read_spares(self.runtime).values()] == [True], "one spare is warm")
        return next(iter(read_spares(self.runtime).values()))[0]

    def starts(self) -> list[tuple[str, int]]:
        """Tag and pid of every time that the job really began."""
        path = self.folder / "starts"
        return [(line.split()[0], int(line.split()[1])) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s: {what}")
            time.sleep(0.02)

    def newest(self, stream: str = STREAM) -> Driver:
        return self.client.drivers()[stream][0]

    def has_exited(self, stream: str = STREAM) -> bool:
        return self.newest(stream).state is DriverState.EXITED

    def wait_begun(self, count: int = 1, stream: str = STREAM) -> None:
        self.wait_until(lambda: len(self.starts()) >= count and self.newest(stream).status_url, f"{count} jobs began")

    def processes(self, pid: int, count: int) -> list[ProcessId]:
        """The processes of the driver with this pid, once they are that many."""
        leader = ProcessId.of(pid)
        assert leader is not None
        self.wait_until(lambda: len(sessions.members(leader)) == count, f"the driver has {count} processes")
        return sessions.members(leader)

    def run_agent(self) -> subprocess.CompletedProcess[str]:
        """Run another agent to its end."""
        return subprocess.run([sys.executable, "-m", "k2.launchers.agent"], env=self.environment, capture_output=True, text=True, timeout=20)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "K2_RUNTIME": str(self.folder / "runtime.json"), "PYTHONPATH": str(INCLUDE)}

    def start_agent(self) -> None:
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "k2.launchers.agent"], env=self.environment, stdout=log, stderr=log)
        self.wait_until(self._answers, "the agent answers")

    def kill_agent(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill_agent()
        for record in records.read_all(self.runtime)[0]:
            if record.process is not None:
                sessions.kill(record.process)
        self.client.close()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "agent.log").read_text()
        try:
            self.client.drivers()
        except AgentUnavailable:
            return False
        return True


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="k2agent"))
    made = Home(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


@pytest.fixture
def agent(home: Home) -> Home:
    home.start_agent()
    return home


class Watched:
    """A home with its agent and database, and what the tests do to its streams."""

    def __init__(self, home: Home, runtime: Runtime) -> None:
        self.home = home
        self.runtime = runtime
        self.names = list(runtime.platform.streams)
        self.kafka = Ends

    def look(self) -> dict[str, Decision]:
        return {found.decision.stream: found.decision for found in watchdog.look(self.runtime)}

    def watch(self) -> dict[str, watchdog.Done]:
        """One run of the watchdog."""
        return {done.stream: done for done in watchdog.act(self.runtime, self.look().values())}

    def up(self) -> None:
        """All streams started, and each with a first commit that the ledger knows."""
        self.watch()
        self.home.wait_until(lambda: len(self.home.starts()) == len(self.names), "all jobs began")
        for name in self.names:
            self.commit(name, 0)
        self.look()

    def commit(self, stream: str, batch: int) -> None:
        """What a driver leaves in its checkpoint for one batch."""
        folder = self.runtime.checkpoint(stream)
        spec = self.runtime.platform.streams[stream]
        topic = self.runtime.platform.exchanges[spec.exchange].topic
        Ends.end = Ends.end if spec.reads else max(Ends.end, batch)
        source = {"version": 1, "snapshot_id": -1, "position": -1, "scan_all_files": False} if spec.reads else {topic: {"0": batch}}
        for name, text in (("offsets", f"v1\n{{}}\n{json.dumps(source)}"), ("commits", "v1\n{}")):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / str(batch)).write_text(text)
        (folder / "metadata").write_text('{"id":"q"}')

    def pid(self, stream: str = STREAM) -> int:
        pid = self.home.newest(stream).pid
        assert pid is not None
        return pid

    def kill(self, stream: str = STREAM) -> int:
        pid = self.pid(stream)
        os.kill(pid, signal.SIGKILL)
        self.home.wait_until(lambda: self.home.has_exited(stream), "the agent sees the death")
        return pid

    def want(self, desired: str, stream: str = STREAM) -> None:
        with database.connect(self.runtime, "control") as connection:
            streams.want(connection, stream, desired, who="test", action="test", reason="test")

    def adopt(self, stream: str = STREAM) -> None:
        """As a person does, who was told what would be lost, and somebody who approved it."""
        assert self.look()[stream].verdict is Verdict.REWIND
        request = control.Request(Wish.ADOPT, stream, "this is right", "ann", "run")
        control.record(self.runtime, request, approved_by="bob", shown=control.check(self.runtime, request).loss)

    def ledger(self, stream: str = STREAM) -> list[dict[str, Any]]:
        with database.connect(self.runtime, "reader") as connection:
            return streams.launches(connection, stream)

    def incidents(self) -> list[dict[str, Any]]:
        with database.connect(self.runtime, "reader") as connection:
            return connection.execute("SELECT * FROM k2.incidents ORDER BY id").fetchall()


AWAY = kafka.KafkaAway


class Ends:
    """Stands for Kafka: partition 0 of each topic begins at `start` and ends at `end`, or where a stream has committed.

    While it is `away` it does not answer.
    """

    start: int | None = 0
    """None: it answers everybody else, and is away when a start asks."""
    end = 0
    away = False

    def __init__(self, bootstrap: str) -> None:
        pass

    def close(self) -> None:
        pass

    def ends(self, topics: list[str]) -> dict[str, dict[str, int]]:
        if Ends.away:
            raise AWAY("Kafka did not answer")
        return {topic: {"0": Ends.end} for topic in topics}

    def starts(self, topics: list[str]) -> dict[str, dict[str, int]]:
        if Ends.start is None:
            raise AWAY("Kafka did not answer")
        return {topic: {"0": Ends.start} for topic in topics}

    def oldest(self, positions: Any) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=2)

    def timestamps(self, positions: dict[str, dict[str, int]]) -> dict[str, dict[str, datetime]]:
        return {topic: {partition: kafka_timestamp(offset) for partition, offset in held.items()} for topic, held in positions.items()}


@pytest.fixture
def watched(own_database: Runtime, agent: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    database.register(own_database, own_database.platform)
    with database.connect(own_database, "admin") as admin:
        admin.execute("TRUNCATE k2.retired, k2.skips, k2.launches, k2.outages, k2.verdicts, k2.incidents, k2.audit, k2.watchers, public.iceberg_tables")
        admin.execute(
            "UPDATE k2.streams SET desired = 'running', generation = 1, fence = 0, forgiven_fence = 0, known_query_id = NULL, known_batch = NULL, "
            "held_for = NULL, adopted_generation = NULL, rebuild_generation = NULL"
        )
        for name, spec in own_database.platform.streams.items():
            if spec.reads:
                admin.execute("INSERT INTO iceberg_tables VALUES ('k2', 'market_data', %s, %s, NULL, 'TABLE')", (spec.reads, f"file:/{name}"))
    (agent.folder / "secrets").symlink_to(own_database.secrets)
    runtime = agent.runtime.model_copy(update={"postgres_host": own_database.postgres_host, "postgres_port": own_database.postgres_port})
    monkeypatch.setattr(Ends, "start", 0)
    monkeypatch.setattr(Ends, "end", 0)
    monkeypatch.setattr(Ends, "away", False)
    monkeypatch.setattr(kafka, "KafkaHeads", Ends)
    monkeypatch.setattr(iceberg.TableHeads, "branch", lambda self, table, location: [])
    monkeypatch.setattr(retention, "read_chain", lambda location: Chain([], whole=True))
    yield Watched(agent, runtime)
