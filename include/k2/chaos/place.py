"""The platform as the faults find it: which process is what, and where each stream stands."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.launchers.records import living_driver
from k2.launchers.spares import read_spares
from k2.processes import ProcessId, family, java_of
from k2.registry.observed import Checkpoint
from k2.registry.runtime import Runtime
from k2.stack import records
from k2.stack.home import Home

PAUSE_SECONDS = 0.02


class NothingToHurt(RuntimeError):
    """What a fault was to hurt is not there. The message names it."""


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """The condition's first true answer; its last one when the time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    return answer


@dataclass(frozen=True)
class Place:
    runtime: Runtime

    @property
    def home(self) -> Home:
        return Home(self.runtime.home)

    def driver(self, stream: str) -> tuple[int, list[ProcessId]]:
        """Fence and processes of the stream's driver, its own Python first. Raises NothingToHurt when none lives within a minute."""
        found = until(lambda: living_driver(self.runtime, stream), 60)
        if found is None:
            raise NothingToHurt(f"{stream} has no driver")
        fence, leader = found
        return fence, [leader, *(p for p in family([leader]) if p != leader)]

    def jvm(self, stream: str) -> ProcessId:
        """The Java process of the stream's driver. Raises NothingToHurt when there is none within a minute."""
        found = until(lambda: java_of(self.driver(stream)[1]), 60)
        if found is None:
            raise NothingToHurt(f"{stream} has no Java process")
        return found

    def service(self, name: str) -> list[ProcessId]:
        """The living processes of a service, but no driver and no spare. Raises NothingToHurt."""
        process = until(lambda: records.recall(self.home, name), 60)
        if process is None:
            raise NothingToHurt(f"{name} does not run")
        return [process] if name == "host_agent" else [process, *(p for p in family([process]) if p != process)]

    def spare(self) -> list[ProcessId]:
        """The processes of a warm spare. Raises NothingToHurt when there is none within a minute and a half."""
        warm = until(lambda: [process for process, warm in read_spares(self.runtime).values() if warm], 90)
        if not warm:
            raise NothingToHurt("there is no warm spare")
        return family(warm[:1])

    def tasks(self) -> list[ProcessId]:
        """The processes that run tasks of Airflow now: what the executor's workers have forked."""
        with contextlib.suppress(psutil.NoSuchProcess):
            (scheduler, *_) = self.service("airflow_scheduler")
            workers = psutil.Process(scheduler.pid).children()
            return [p for worker in workers for child in worker.children() if (p := ProcessId.of(child.pid))]
        return []

    def tail(self, stream: str) -> Checkpoint | None:
        """Where its checkpoint stands; None when it cannot be read at the moment."""
        try:
            return read_tail(self.runtime.checkpoint(stream))
        except CheckpointUnreadable:
            return None

    def in_batch(self, stream: str, seconds: float = 30.0) -> bool:
        """Waits until a batch of the stream is planned and not committed. False when none was in time."""
        return bool(until(lambda: (tail := self.tail(stream)) and tail.in_flight, seconds))

    def between_batches(self, stream: str) -> bool:
        """Waits until a batch of the stream has just been committed. False when none was in time."""
        before = self.tail(stream)
        last = before.last_commit_batch if before else None
        return bool(until(lambda: (tail := self.tail(stream)) and not tail.in_flight and tail.last_commit_batch != last, 60))

    def proxy(self, stream: str, mode: str, delay_seconds: float = 0.0) -> None:
        """Sets what becomes of the stream's connections to Kafka."""
        if self.runtime.kafka_proxy is None:
            raise NothingToHurt("this platform runs without the proxy")
        body = {"route": stream, "mode": mode, "delay_seconds": delay_seconds}
        httpx.post(f"{self.runtime.kafka_proxy}/mode", json=body, timeout=5, trust_env=False).raise_for_status()

    def sql(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.runtime.conninfo("control"))  # type: ignore[arg-type]

    @property
    def checkpoints(self) -> Path:
        return self.runtime.checkpoints
