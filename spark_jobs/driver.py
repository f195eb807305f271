"""The life cycle that every driver shares: start, watch, drain on SIGTERM, and leave with a code that says why."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from pyspark.sql import SparkSession
from pyspark.sql.streaming import StreamingQuery

from catalog import CONNECTION_ERRORS, Access, fenced, open_catalog
from failures import Ended, QueryFailed, causes, classify
from jvm import listen
from k2.checkpoints.reader import CheckpointUnreadable, read_offsets, read_tail
from k2.registry.observed import ExitCode, Failure, Records
from k2.registry.platform import ConfigError, Platform, Stream
from k2.registry.runtime import Runtime, RuntimeMissing, load_runtime
from session import start_session
from status import Board, Listener, serve, write_json

POLL_SECONDS = 0.2
COUNT_TASKS_SECONDS = 1.0
RETRY_SECONDS = 1.0
JVM_EXIT_SECONDS = 5.0
DRAIN_SHARE = 0.9
"""Of the time after which the host agent kills a driver that drains; half of the rest is for the query to stop, half for leaving."""
TRIGGER_NEAR_SECONDS = 0.3
"""A stop so close to the next trigger could cut off the batch that it plans."""


class Stopping(Exception):
    """The driver was asked to stop while it waited for something."""


@dataclass
class Driver:
    """One driver process: what it was told, what it holds, and what its query's callbacks leave for it."""

    runtime: Runtime
    platform: Platform
    stream: str
    fence: int
    access: Access
    board: Board
    spark: SparkSession = field(init=False)
    catalog: Any = field(init=False)
    """Iceberg's Java Catalog."""
    stopping: bool = False
    failure: BaseException | None = None
    """What a callback raised. Spark hands on its text alone."""
    blamed: tuple[Records, bool] | None = None
    """The records that a failing batch was found to fail of, and whether each was seen to."""

    @classmethod
    def of(cls, runtime: Runtime, stream: str, fence: int) -> Driver:
        """The driver of a stream of the platform."""
        return cls(runtime, runtime.platform, stream, fence, fenced(stream, fence), Board(stream, fence))

    @property
    def spec(self) -> Stream:
        return self.platform.streams[self.stream]

    @property
    def checkpoint(self) -> Path:
        return self.runtime.checkpoint(self.stream)

    @property
    def directory(self) -> Path:
        return self.runtime.driver_dir(self.stream, self.fence)

    def table(self, name: str) -> str:
        """A table's full name in Spark."""
        return f"{self.platform.catalog.name}.{self.platform.catalog.namespace}.{name}"

    def say(self, message: str) -> None:
        """One line in the driver's log."""
        print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {message}", file=sys.stderr, flush=True)

    def wait(self, dependency: str, why: str) -> None:
        """Say that a dependency does not answer, and pause before the next attempt. Raises Stopping on SIGTERM."""
        if self.board.status.waits_for != dependency:
            self.say(f"waits for {dependency}: {why}")
        self.board.wait_for(dependency)
        deadline = time.monotonic() + RETRY_SECONDS
        while time.monotonic() < deadline:
            if self.stopping:
                raise Stopping(f"stopped while it waited for {dependency}")
            time.sleep(0.05)


Start = Callable[[Driver], StreamingQuery]


def main(kind: str, start: Start) -> NoReturn:
    """Run one driver of a stream of this kind until its query ends or SIGTERM. Never returns."""
    show_threads_on_signal()
    parser = argparse.ArgumentParser(description=f"Run the driver of one {kind} stream. Started by the host agent.")
    parser.add_argument("--stream", required=True, help="name of the stream in platform.yaml")
    parser.add_argument("--fence", required=True, type=int, help="fence that this driver holds")
    arguments = parser.parse_args()
    try:
        runtime = load_runtime()
        _check(runtime, arguments.stream, kind)
    except (ConfigError, RuntimeMissing, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.CONFIG)
    driver = Driver.of(runtime, arguments.stream, arguments.fence)
    drive(driver, start, Exit(driver.directory), lambda: _own_session(driver))


def show_threads_on_signal() -> None:
    """On SIGUSR1, write the stacks of Python's threads to the log. The JVM does the same on SIGQUIT."""
    faulthandler.register(signal.SIGUSR1)


def drive(driver: Driver, start: Start, exit_: Exit, session: Callable[[], SparkSession]) -> NoReturn:
    """Run a driver in the session that `session` returns, and end the process with it."""
    signal.signal(signal.SIGTERM, lambda *_: _ask_to_stop(driver))
    try:
        driver.directory.mkdir(parents=True, exist_ok=True)
        driver.say(f"driver of {driver.stream} starts with fence {driver.fence}")
        serve(driver.board, driver.directory)
        driver.spark = session()
        exit_.watch(driver.spark)
        driver.say("session is up")
        _run(driver, start)
        exit_.leave(*_stopped(driver))
    except Stopping as reason:
        exit_.leave(*_stopped(driver, f"{reason}, "))
    except Exception as error:
        exit_.await_jvm(error)
        traceback.print_exception(error)
        ended = classify(error) if not isinstance(error, ConfigError) else Ended(ExitCode.CONFIG, str(error))
        exit_.leave(ended.code, ended.message, blame(driver, ended))


def _own_session(driver: Driver) -> SparkSession:
    return start_session(
        application=f"{driver.stream}#{driver.fence}",
        jars=driver.runtime.jars,
        heap_mb=driver.spec.heap_mb,
        scratch=driver.directory / "scratch",
        fence=driver.fence,
        quick_start=driver.spec.quick_start,
    )


def _check(runtime: Runtime, stream: str, kind: str) -> None:
    streams = runtime.platform.streams
    if stream not in streams:
        raise ConfigError(f"--stream {stream!r} is not declared in platform.yaml: use one of {', '.join(streams)}")
    if streams[stream].type != kind:
        raise ConfigError(f"--stream {stream!r} is a {streams[stream].type} stream: start it with {streams[stream].type}.py")


def _ask_to_stop(driver: Driver) -> None:
    driver.stopping = True


def _stopped(driver: Driver, why: str = "") -> tuple[ExitCode, str]:
    """How to leave after a stop that was asked for: it drained when nothing is planned and not committed."""
    if in_flight := _in_flight(driver.checkpoint):
        return ExitCode.CUT_SHORT, f"{why}stopped before {in_flight} was committed: the next driver replays it"
    return ExitCode.STOPPED, f"{why}drained: every planned batch is committed"


def _run(driver: Driver, start: Start) -> None:
    """Bring the query up, and watch it until it ends or a stop that was asked for is done."""
    _open_catalog(driver)
    driver.say("catalog is open")
    listen(driver.spark, Listener(driver.board, driver.spec.writes[0] if driver.spec.type == "bronze" else None))
    wait_ms = 1000 * (1 - DRAIN_SHARE) / 2 * driver.platform.restart.drain_timeout_seconds
    driver.spark.conf.set("spark.sql.streaming.stopTimeout", str(round(wait_ms)))
    query = start(driver)
    driver.say("query is started")
    tasks = driver.spark.sparkContext._jsc.sc().statusStore()  # type: ignore[union-attr]
    count_tasks_at = 0.0
    while not driver.stopping:
        if not query.isActive:
            raise reason(driver, query)
        driver.board.update(message=query.status["message"])
        if time.monotonic() >= count_tasks_at:
            summary = tasks.executorSummary("driver")
            driver.board.tasks(summary.completedTasks(), summary.activeTasks())
            count_tasks_at = time.monotonic() + COUNT_TASKS_SECONDS
        time.sleep(POLL_SECONDS)
    _drain(driver, query)


def _open_catalog(driver: Driver) -> None:
    """Open the catalog; while PostgreSQL cannot be reached, wait for it and say so."""
    while True:
        try:
            driver.catalog = open_catalog(driver.spark, driver.runtime, driver.platform, driver.access)
            driver.board.wait_for(None)
            return
        except Exception as error:
            lost = [cause for cause in causes(error) if cause.sql_state.startswith(CONNECTION_ERRORS)]
            if not lost:
                raise
            why = lost[-1].text
        driver.wait("catalog", why)


def _drain(driver: Driver, query: StreamingQuery) -> None:
    """Let the batch in flight commit, then stop the query. A batch that outlasts the deadline is replayed by the next driver."""
    driver.board.update(phase="stopping", message="draining")
    begun = time.monotonic()
    deadline = begun + DRAIN_SHARE * driver.platform.restart.drain_timeout_seconds
    pause_by = begun + driver.spec.trigger_seconds + 1  # a query that is behind makes none between its batches
    while query.isActive and time.monotonic() < deadline:
        if _in_flight(driver.checkpoint) is None and (time.monotonic() >= pause_by or not _plans(query, driver.spec.trigger_seconds)):
            break
        time.sleep(0.01)
    if not query.isActive and not isinstance(driver.failure, Stopping):
        raise reason(driver, query)
    try:
        query.stop()
    except Exception as error:  # a commit that hangs in the database cannot be interrupted: leave all the same, and say so
        driver.say(f"the query did not stop: {error}")


def _plans(query: StreamingQuery, trigger_seconds: int) -> bool:
    """Whether the query may be planning a batch, or is about to: Spark's triggers are at multiples of their interval."""
    return query.status["isTriggerActive"] or trigger_seconds - time.time() % trigger_seconds < TRIGGER_NEAR_SECONDS


def _in_flight(checkpoint: Path) -> str | None:
    """The batch that is planned and not committed; None when there is none."""
    try:
        tail = read_tail(checkpoint)
    except CheckpointUnreadable as error:
        return f"a batch that nobody can name ({error.reason})"
    return f"batch {tail.last_offset_batch}" if tail.in_flight else None


def reason(driver: Driver, query: StreamingQuery) -> BaseException:
    """Why a query ended that nobody had asked to."""
    if driver.failure is not None:
        return driver.failure
    java = query._jsq.exception()
    return QueryFailed(java.get()) if java.isDefined() else RuntimeError(f"query {driver.stream} ended without an error, and nobody asked for it")


def blame(driver: Driver, ended: Ended) -> Failure:
    """What is known of a failure beyond its message: the batch in flight and its records."""
    records, narrowed = driver.blamed or (None, False)
    batch = None
    try:
        tail = read_tail(driver.checkpoint)
        if tail.in_flight and tail.last_offset_batch is not None:
            batch = tail.last_offset_batch
            records = records or planned(driver.checkpoint, batch)
    except CheckpointUnreadable as error:
        driver.say(f"the batch that failed cannot be named: {error}")
    return Failure(ended.fingerprint, batch, records, narrowed, ended.dependency)


def planned(checkpoint: Path, batch: int) -> Records | None:
    """The Kafka records that a batch of Bronze was to read; None when its source is a table."""
    end = read_offsets(checkpoint, batch)[0]
    if end is None or "snapshot_id" in end:
        return None
    begin = (read_offsets(checkpoint, batch - 1)[0] if batch else None) or {}
    found: Records = {}
    for topic, numbers in end.items():
        for number, until in numbers.items():
            first = begin.get(topic, {}).get(number, 0)
            if until > first:
                found.setdefault(topic, {})[number] = [[first, until - 1]]
    return found


class Exit:
    """The one way out: whoever comes first writes exit.json, ends the JVM and leaves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._jvm: subprocess.Popen[bytes] | None = None

    def watch(self, spark: SparkSession) -> None:
        """From now on, leave as soon as the JVM is gone."""
        if self._jvm is not None:
            return
        self._jvm = spark.sparkContext._gateway.proc  # type: ignore[union-attr]
        threading.Thread(target=self._wait_for_jvm, name="jvm", daemon=True).start()

    def _wait_for_jvm(self) -> None:
        assert self._jvm is not None
        code = self._jvm.wait()
        self.leave(ExitCode.JVM_DIED, f"the Java process ended with {code}")

    def await_jvm(self, error: BaseException) -> None:
        """A call into a JVM that just died fails before the kernel reports the death: give it the time to."""
        if self._jvm is not None and not causes(error):
            try:
                self._jvm.wait(1.0)
            except subprocess.TimeoutExpired:
                return
            threading.Event().wait(1.0)

    def leave(self, code: ExitCode, message: str, failure: Failure | None = None) -> NoReturn:
        """Record how the driver ends, and end it."""
        self._lock.acquire()  # never released: a second caller waits here until the first has ended the process
        print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} leaves with {int(code)} ({code.name.lower()}): {message}", file=sys.stderr)
        try:
            if self.directory.is_dir():
                said: dict[str, object] = {"code": int(code), "class": code.name.lower(), "message": message}
                write_json(self.directory / "exit.json", said | ({"failure": asdict(failure)} if failure else {}))
            self._end_jvm()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _end_jvm(self) -> None:
        """The JVM ends when its standard input closes; wait for it, so that nothing outlives this process."""
        if self._jvm is None:
            return
        if self._jvm.stdin is not None:
            self._jvm.stdin.close()
        deadline = time.monotonic() + JVM_EXIT_SECONDS
        while self._jvm.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._jvm.poll() is None:
            self._jvm.kill()
