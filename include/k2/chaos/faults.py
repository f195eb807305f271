"""Each kind of fault, done for real: a function that hurts, yields while the fault is held, and then heals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from k2.chaos import memory
from k2.chaos.place import NothingToHurt, Place, until
from k2.chaos.plan import Kind
from k2.launchers import sessions
from k2.launchers.client import AgentClient
from k2.processes import ProcessId, java_of
from k2.registry.observed import ExitCode
from k2.state import streams
from k2.state.database import connect

Injury = Callable[[Place, str], AbstractContextManager[str]]
"""Given what to hurt, a context that yields what was done in a few words, and heals at its end."""

WATCHDOG_SECONDS = 60
STALE_SECONDS = 60.0
"""How long a driver with an old fence may take to try a commit."""
COMMIT_SECONDS = 120.0
"""How long a driver may take to its next commit."""


WATCHDOG = """
import sys, time
from k2 import watchdog
from k2.registry.runtime import load_runtime
runtime = load_runtime()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    for done in watchdog.act(runtime, [look.decision for look in watchdog.urgent(runtime)]):
        print(done.ok, done.detail, flush=True)
    time.sleep(0.2)
"""
"""Another watchdog, for two seconds."""


class Violated(RuntimeError):
    """The platform did not do what it promises, such as refusing a driver with an old fence. The message says what."""


def _send(processes: list[ProcessId], signum: signal.Signals) -> str:
    sent = [p.pid for p in processes if p.send(signum)]
    return f"{signum.name} {', '.join(map(str, sent[:4]))}{', ...' if len(sent) > 4 else ''}"


@contextmanager
def _driver_kill(place: Place, stream: str) -> Iterator[str]:
    yield _send(place.driver(stream)[1], signal.SIGKILL)


@contextmanager
def _driver_term(place: Place, stream: str) -> Iterator[str]:
    yield _send(place.driver(stream)[1][:1], signal.SIGTERM)


def _out_of_memory(find: Callable[[Place, str], ProcessId]) -> Injury:
    @contextmanager
    def hurt(place: Place, target: str) -> Iterator[str]:
        process = find(place, target)
        with memory.exhausted(process) as how:
            if until(lambda: not process.alive, 60) is not True:
                process.send(signal.SIGKILL)
                raise NothingToHurt(f"{process.name} {process.pid} lived on without memory for a minute")
        yield how

    return hurt


@contextmanager
def _frozen(processes: list[ProcessId]) -> Iterator[str]:
    done = _send(processes, signal.SIGSTOP)
    try:
        yield done
    finally:
        _send(processes, signal.SIGCONT)


@contextmanager
def _driver_freeze(place: Place, stream: str) -> Iterator[str]:
    members = place.driver(stream)[1]
    in_batch = place.in_batch(stream)
    with _frozen(members) as done:
        yield f"{done} {'in a batch' if in_batch else 'between batches'}"


@contextmanager
def _driver_zombie(place: Place, stream: str) -> Iterator[str]:
    """The fence rises and a successor starts, as by a watchdog whose agent could not kill; then the old driver wakes, and nobody ends it."""
    with _frozen([*place.service("airflow_triggerer"), *place.service("airflow_scheduler")]):
        fence, members = place.driver(stream)
        where = "in a batch" if place.in_batch(stream) else "between batches"
        _send(members, signal.SIGSTOP)
        try:
            with AgentClient(place.runtime) as agent:
                raised = _raise_fence(place, stream, fence, "a zombie of ./k2 chaos")
                how = agent.launch(stream, raised, spare=True).how
            with connect(place.runtime, "control") as connection:
                streams.launched(connection, stream, raised, how)
            started = datetime.now(UTC)
            until(lambda: (tail := place.tail(stream)) and tail.last_commit_at and tail.last_commit_at > started, STALE_SECONDS)
        finally:
            _send(members, signal.SIGCONT)
        ended = until(lambda: not members[0].alive, STALE_SECONDS)
        code = _exit_of(place.runtime.driver_dir(stream, fence))
    if not ended or code != ExitCode.FENCED:
        raise Violated(f"the thawed driver of {stream} with fence {fence} {'left with ' + str(code) if ended else 'lives on'}, not refused by the fence")
    yield f"fence {fence} stopped {where}, thawed beside {raised}: refused ({int(ExitCode.FENCED)})"


def _raise_fence(place: Place, stream: str, seen: int, reason: str) -> int:
    with connect(place.runtime, "control") as connection:
        connection.execute("SET LOCAL lock_timeout = 20000")
        generation = streams.wanted(connection, stream).generation
        streams.ended(connection, stream, seen, at=datetime.now(UTC), exit_code=None, reason="replaced")
        return streams.raise_fence(connection, stream, seen=seen, generation=generation, reason=reason, detected_at=None)


def _exit_of(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / "exit.json").read_text())["code"])
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def _double_start(place: Place, stream: str) -> Iterator[str]:
    """A person starts a driver by hand with the fence before the current one, beside the one that runs."""
    fence = place.driver(stream)[0] - 1
    runtime = place.runtime
    script = runtime.tree / "spark_jobs" / f"{runtime.platform.streams[stream].type}.py"
    command = [sys.executable, str(script), "--stream", stream, "--fence", str(fence)]
    (runtime.driver_dir(stream, fence) / "exit.json").unlink(missing_ok=True)
    environment = {**os.environ, "K2_RUNTIME": str(place.home.runtime_file), "PYTHONPATH": str(runtime.tree / "include")}
    with (runtime.logs / "chaos_double_start.log").open("ab") as log:
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        code = child.wait(STALE_SECONDS * 2)
    except subprocess.TimeoutExpired:
        raise Violated(f"a second driver of {stream} with fence {fence} was not refused for {STALE_SECONDS * 2:.0f} s") from None
    finally:
        if leader := ProcessId.of(child.pid):
            sessions.kill(leader)
    if code != ExitCode.FENCED:
        raise Violated(f"a second driver of {stream} with fence {fence} left with {code}, not with {int(ExitCode.FENCED)}")
    yield f"fence {fence} by hand: refused ({code})"


@contextmanager
def _write_blocked(place: Place, stream: str) -> Iterator[str]:
    """Somebody's transaction holds the table's row in the catalog: the commit waits inside foreachBatch."""
    table = place.runtime.platform.streams[stream].writes[0]
    with closing(place.sql()) as connection:
        connection.execute("SELECT 1 FROM iceberg_tables WHERE table_name = %s FOR UPDATE", (table,))
        blocked = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        if not until(lambda: connection.execute(blocked).fetchone(), COMMIT_SECONDS):
            raise NothingToHurt(f"no commit to {table} came within {COMMIT_SECONDS:.0f} s")
        yield f"a commit waits for the catalog's row of {table}"


def _proxied(mode: str, delay_seconds: float = 0.0) -> Injury:
    @contextmanager
    def hurt(place: Place, stream: str) -> Iterator[str]:
        if not place.between_batches(stream):
            raise NothingToHurt(f"{stream} committed no batch in time")
        place.proxy(stream, mode, delay_seconds)
        try:
            yield f"proxy: {mode}"
        finally:
            place.proxy(stream, "pass")

    return hurt


def _signalled(service: str, signum: signal.Signals, *, whole: bool = True) -> Injury:
    @contextmanager
    def hurt(place: Place, _: str) -> Iterator[str]:
        members = place.service(service)
        yield _send(members if whole else members[:1], signum)

    return hurt


def _stopped(service: str) -> Injury:
    @contextmanager
    def hurt(place: Place, _: str) -> Iterator[str]:
        with _frozen(place.service(service)) as done:
            yield done

    return hurt


@contextmanager
def _task_kill(place: Place, stream: str) -> Iterator[str]:
    """The task that was to start the stream again dies at it."""
    busy = set(place.tasks())
    killed = _send(place.driver(stream)[1], signal.SIGKILL)

    def kill() -> list[ProcessId]:
        tasks = [task for task in place.tasks() if task not in busy]
        if tasks:
            time.sleep(0.5)  # it has been forked, and is about to act
        return [task for task in tasks if task.send(signal.SIGKILL)]

    dead = until(kill, 30)  # one that found nothing due yet may be gone before
    if not dead:
        raise NothingToHurt("no task could be killed within 30 s of the driver's death")
    yield f"driver {killed}, task SIGKILL {', '.join(str(task.pid) for task in dead)}"


@contextmanager
def _watchdog_pause(place: Place, stream: str) -> Iterator[str]:
    """Triggerer and scheduler are stopped while a driver dies."""
    with _frozen([*place.service("airflow_triggerer"), *place.service("airflow_scheduler")]):
        yield f"triggerer and scheduler stopped, driver {_send(place.driver(stream)[1], signal.SIGKILL)}"


@contextmanager
def _two_watchdogs(place: Place, stream: str) -> Iterator[str]:
    """Another watchdog acts beside Airflow's: the same code, in processes of its own."""
    environment = {**os.environ, "K2_RUNTIME": str(place.home.runtime_file)}
    others = [
        subprocess.Popen([sys.executable, "-c", WATCHDOG], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    try:
        if any(other.stdout.readline() != "ready\n" for other in others):  # type: ignore[union-attr]
            raise Violated("another watchdog did not start")
        killed = _send(place.driver(stream)[1], signal.SIGKILL)
        said = [other.communicate("go\n", timeout=WATCHDOG_SECONDS)[0] for other in others]
    except subprocess.TimeoutExpired:
        raise Violated(f"another watchdog was not done after {WATCHDOG_SECONDS} s") from None
    finally:
        for other in others:
            other.kill()
            other.wait()
    if any(other.returncode for other in others):
        raise Violated(f"another watchdog failed: {' '.join(said)[-500:]}")
    started = sum(words.count("started with") + words.count("finished the start") for words in said)
    yield f"driver {killed}; two more watchdogs made {started} starts"


def _spare(signum: signal.Signals, *, whole: bool = True) -> Injury:
    @contextmanager
    def hurt(place: Place, _: str) -> Iterator[str]:
        members = place.spare()
        yield _send(members if whole else members[:1], signum)

    return hurt


def _spare_jvm(place: Place, _: str) -> ProcessId:
    if (jvm := java_of(place.spare())) is None:
        raise NothingToHurt("the spare has no Java process")
    return jvm


@contextmanager
def _spare_freeze(place: Place, stream: str) -> Iterator[str]:
    spare = place.spare()
    with _frozen(spare) as done:
        yield f"spare {done}, driver {_send(place.driver(stream)[1], signal.SIGKILL)}"


def _feed(signum: signal.Signals) -> Injury:
    @contextmanager
    def hurt(place: Place, exchange: str) -> Iterator[str]:
        members = place.service(f"feed_{exchange}")
        done = _send(members, signum)
        try:
            yield done
        finally:
            if signum is signal.SIGSTOP:
                _send(members, signal.SIGCONT)

    return hurt


@contextmanager
def _disk_full(place: Place, _: str) -> Iterator[str]:
    """A file takes all that is free on the checkpoints' disk, which is one of their own."""
    if not os.path.ismount(place.checkpoints):
        raise NothingToHurt(f"{place.checkpoints} is not on a disk of its own")
    ballast = place.checkpoints / ".k2-chaos-ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError as error:
                full = error.strerror
        yield f"{ballast.stat().st_size >> 20} MiB written: {full}"
    finally:
        ballast.unlink(missing_ok=True)


FAULTS: dict[Kind, Injury] = {
    Kind.DRIVER_KILL: _driver_kill,
    Kind.DRIVER_TERM: _driver_term,
    Kind.DRIVER_OOM: _out_of_memory(Place.jvm),
    Kind.DRIVER_FREEZE: _driver_freeze,
    Kind.DRIVER_ZOMBIE: _driver_zombie,
    Kind.DOUBLE_START: _double_start,
    Kind.WRITE_BLOCKED: _write_blocked,
    Kind.BROKER_HOLE: _proxied("hole"),
    Kind.BROKER_RESET: _proxied("reset"),
    Kind.BROKER_SLOW: _proxied("slow", 0.5),
    Kind.BROKER_STOP: _signalled("kafka", signal.SIGTERM, whole=False),
    Kind.BROKER_FREEZE: _stopped("kafka"),
    Kind.REGISTRY_KILL: _signalled("schema_registry", signal.SIGKILL),
    Kind.REGISTRY_FREEZE: _stopped("schema_registry"),
    Kind.DATABASE_RESTART: _signalled("postgres", signal.SIGINT, whole=False),
    Kind.TRIGGERER_KILL: _signalled("airflow_triggerer", signal.SIGKILL),
    Kind.SCHEDULER_KILL: _signalled("airflow_scheduler", signal.SIGKILL),
    Kind.TASK_KILL: _task_kill,
    Kind.WATCHDOG_PAUSE: _watchdog_pause,
    Kind.TWO_WATCHDOGS: _two_watchdogs,
    Kind.AGENT_KILL: _signalled("host_agent", signal.SIGKILL),
    Kind.AGENT_FREEZE: _stopped("host_agent"),
    Kind.AGENT_TERM: _signalled("host_agent", signal.SIGTERM),
    Kind.AGENT_OOM: _out_of_memory(lambda place, _: place.service("host_agent")[0]),
    Kind.SPARE_KILL: _spare(signal.SIGKILL),
    Kind.SPARE_TERM: _spare(signal.SIGTERM, whole=False),
    Kind.SPARE_OOM: _out_of_memory(_spare_jvm),
    Kind.SPARE_FREEZE: _spare_freeze,
    Kind.FEED_KILL: _feed(signal.SIGKILL),
    Kind.FEED_FREEZE: _feed(signal.SIGSTOP),
    Kind.FEED_TERM: _feed(signal.SIGTERM),
    Kind.FEED_OOM: _out_of_memory(lambda place, exchange: place.service(f"feed_{exchange}")[0]),
    Kind.DISK_FULL: _disk_full,
}
