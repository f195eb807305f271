"""A driver's own word on itself: /status as JSON and /metrics for Prometheus, on a loopback port of its own."""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from jvm import QueryEvents
from k2.registry.observed import QueryStatus

BATCHES = 100
PHASES = ("starting", "running", "waiting", "stopping")


class Board:
    """What is known of the query now. Written by the driver's threads, read by the HTTP server's."""

    def __init__(self, stream: str, fence: int) -> None:
        self._lock = threading.Lock()
        self._status = QueryStatus(
            stream=stream,
            fence=fence,
            query_id=None,
            run_id=None,
            batch_id=None,
            message="starting",
            phase="starting",
            waits_for=None,
            last_event_at=None,
            batch_seconds=None,
            input_rows=None,
        )
        self._pauses: deque[float] = deque(maxlen=BATCHES)
        self._warm = False
        self._waited = False
        self._completed_tasks: int | None = None
        self._rises: list[datetime] = []
        self._rows: Counter[str] = Counter()

    def update(self, **fields: object) -> None:
        """Set fields of the status. A driver that is stopping stays so."""
        with self._lock:
            if self._status.phase == "stopping":
                fields.pop("phase", None)
            self._status = replace(self._status, **fields)  # type: ignore[arg-type]

    def wait_for(self, dependency: str | None) -> None:
        """Say which dependency the driver waits for, or that it waits no longer."""
        with self._lock:
            self._waited = self._waited or dependency is not None
            phase = self._status.phase
            if phase != "stopping":
                phase = "waiting" if dependency else ("running" if self._status.query_id else "starting")
            self._status = replace(self._status, waits_for=dependency, phase=phase)

    def batch(self, began: datetime, seconds: float) -> None:
        """A batch ended that began then and took so long."""
        ended = began + timedelta(seconds=seconds)
        with self._lock:
            signs = [began, *(rise for rise in self._rises if began < rise < ended), ended]
            self._rises = [rise for rise in self._rises if rise >= ended]
            if not self._warm:
                self._pauses.clear()  # a driver's first batch is slow because all is new to its JVM: it tells nothing of later ones
                self._warm = self._status.batch_seconds is not None
            if not self._waited:  # the pauses of a batch that waited for a dependency are not its own
                self._pauses.append(max((after - before).total_seconds() for before, after in pairwise(signs)))
            self._waited = self._status.waits_for is not None
            self._status = replace(self._status, batch_seconds=seconds, longest_pause_seconds=max(self._pauses, default=None))

    def tasks(self, completed: int, active: int) -> None:
        """How many tasks Spark has completed, and how many it runs."""
        with self._lock:
            if self._completed_tasks is not None and completed > self._completed_tasks:
                self._rises.append(datetime.now(UTC))
            self._completed_tasks = completed
            self._status = replace(self._status, active_tasks=active, tasks_at=self._rises[-1] if self._rises else self._status.tasks_at)

    def count(self, table: str, rows: int) -> None:
        """Add rows that this driver committed to a table."""
        with self._lock:
            self._rows[table] += rows

    @property
    def status(self) -> QueryStatus:
        with self._lock:
            return self._status

    @property
    def rows(self) -> dict[str, int]:
        with self._lock:
            return dict(self._rows)

    def as_json(self) -> bytes:
        fields = asdict(self.status)
        return json.dumps(fields, default=datetime.isoformat).encode()

    def collect(self) -> Iterator[Metric]:
        """Prometheus metrics, made at the time of the scrape."""
        status = self.status
        gauges: dict[str, tuple[str, float | None]] = {
            "k2_driver_fence": ("Fence that the driver holds.", status.fence),
            "k2_driver_batch_id": ("Last batch that ended.", status.batch_id),
            "k2_driver_batch_seconds": ("Duration of the last batch.", status.batch_seconds),
            "k2_driver_batch_rows": ("Rows that the last batch read.", status.input_rows),
            "k2_driver_last_event_timestamp_seconds": (
                "Time of the query's last progress or idle event. The other gauges keep their value while a query hangs; this one ages.",
                status.last_event_at.timestamp() if status.last_event_at else None,
            ),
            "k2_driver_waiting": ("1 while the driver waits for a dependency.", float(status.waits_for is not None)),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=["stream"])
            if value is not None:
                gauge.add_metric([status.stream], value)
            yield gauge
        phase = GaugeMetricFamily("k2_driver_phase", "1 for the phase the driver is in.", labels=["stream", "phase"])
        for name in PHASES:
            phase.add_metric([status.stream, name], float(name == status.phase))
        yield phase
        rows = CounterMetricFamily("k2_driver_rows", "Rows that this driver committed.", labels=["stream", "table"])
        for table, count in self.rows.items():
            rows.add_metric([status.stream, table], count)
        yield rows


class Listener(QueryEvents):
    """Carries the query's events to the board."""

    def __init__(self, board: Board, count_rows_of: str | None) -> None:
        self._board = board
        self._count_rows_of = count_rows_of
        """The table that receives each row that the query reads, when no writer of ours counts them."""

    def started(self, event: str) -> None:
        facts = json.loads(event)
        self._board.update(query_id=facts["id"], run_id=facts["runId"], phase="running", last_event_at=datetime.now(UTC))

    def progressed(self, progress: str) -> None:
        facts = json.loads(progress)
        fields: dict[str, object] = {"batch_id": facts["batchId"], "last_event_at": datetime.now(UTC)}
        self._board.batch(datetime.fromisoformat(facts["timestamp"]), facts["durationMs"].get("triggerExecution", 0) / 1000)
        if self._count_rows_of:
            fields["input_rows"] = facts["numInputRows"]
            self._board.count(self._count_rows_of, facts["numInputRows"])
        self._board.update(**fields)

    def idle(self) -> None:
        self._board.update(last_event_at=datetime.now(UTC))

    def terminated(self) -> None:
        self._board.update(message="ended")


def serve(board: Board, directory: Path) -> None:
    """Serve the board from a daemon thread, and say where in `directory`/ready.json."""
    registry = CollectorRegistry()
    registry.register(board)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/status":
                self._answer(200, "application/json", board.as_json())
            elif self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            else:
                self._answer(404, "text/plain", b"only /status and /metrics are served here\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A line per scrape would bury the driver's log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    write_json(directory / "ready.json", {"port": server.server_port})


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write a small file that a reader sees whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content))
    partial.replace(path)
