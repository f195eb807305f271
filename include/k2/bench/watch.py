"""What it costs to watch a thousand streams, and how late they are looked at: `./k2 bench watch`.

The poll of the platform runs as it does in the triggerer: the trigger in an event loop, in a process of its own, whose
processor time (user and system, every thread) is measured over windows after a warm-up. What it watches is another
process (k2.bench.watched_world) and the stack's own PostgreSQL; Kafka is not there, so every stream reads a table. A
figure of a size is the median of its windows. How late a stream was judged is read from the verdicts in the database:
the time between two of them, less the period. At the end some drivers die, and the poll's events are awaited.

The rival does the same work the obvious way: one loop over the streams (k2.bench.plain_watch).
"""

from __future__ import annotations

import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import yaml

from k2.bench import watched_world as world
from k2.bench.report import Figure, Report, machine
from k2.checkpoints.reader import read_tail
from k2.percentiles import percentile
from k2.registry.files import REGISTRY
from k2.registry.platform import parse_platform
from k2.registry.runtime import Runtime
from k2.stack import control
from k2.stack.errors import K2Error
from k2.stack.progress import Terminal
from k2.stack.temporary import temporary_home

ROUNDS = 3
SIZE, LINE = 1000, (100, 3000)
PERIOD_SECONDS = 10
MOVING_SHARE = 0.2
WARM_SECONDS = 5.0
WINDOW_SECONDS = 20.0
DEATHS = 10
LIMIT_SECONDS = 120.0
RIVAL = "httpx and listdir in a loop"

POLL = """
import asyncio, json, sys, time
from k2.airflow.triggers import StreamsPollTrigger

async def main():
    async for event in StreamsPollTrigger().run():
        print(json.dumps({"at": time.time(), "streams": event.payload["streams"], "because": event.payload["because"]}), flush=True)

asyncio.run(main())
"""


def run(rounds: int = ROUNDS) -> Report:
    """Measure each size and the rival; `rounds` is the number of windows at a thousand streams. Raises K2Error when something does not run."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Terminal() as progress, temporary_home("watch", progress=progress) as home:
        stack = control.up(home, services=("postgres",), progress=progress)
        names = [f"s{number:04d}" for number in range(max(SIZE, *LINE))]
        for name in names:
            world.lay_out_checkpoint(home / "streams" / "checkpoints" / name, world.SNAPSHOTS)
        bench = _Bench(stack, home, progress)
        ours = bench.watch(names[:SIZE], "-c", POLL, windows=rounds, deaths=DEATHS)
        rival = bench.watch(names[:SIZE], "-m", "k2.bench.plain_watch", windows=1)
        line = {size: bench.watch(names[:size], "-c", POLL, windows=1) for size in LINE}
    return Report("watch", f"{machine()}, load before it {bench.load}", figures(ours, rival, line))


class Watched:
    """What was measured of one watcher over one size: CPU share per window in %, seconds late per reading, seconds from a death to its event."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.late: list[float] = []
        self.told: list[float] = []


def figures(ours: Watched, rival: Watched, line: dict[int, Watched]) -> tuple[Figure, ...]:
    """The figures of a thousand streams against the rival's, then the line over the sizes."""
    p99, rivals = percentile(ours.late, 99), percentile(rival.late, 99)
    late = Figure("p99 lateness", round(p99, 3), "s", RIVAL, round(rivals, 3), round(p99 / rivals, 3) if rivals else None, tuple(sorted(ours.late)[-20:]))
    return (
        Figure.of(f"cpu share of a core at {SIZE} streams", ours.cpu, "%", rival=RIVAL, rival_samples=rival.cpu),
        late,
        Figure.of(f"a death is told at {SIZE} streams", ours.told, "s"),
        *(Figure.of(f"cpu share of a core at {size} streams, line", found.cpu, "%") for size, found in sorted({**line, SIZE: ours}.items())),
        *(Figure(f"p99 lateness at {size} streams", round(percentile(found.late, 99), 3), "s", None, None, None, ()) for size, found in sorted(line.items())),
    )


def lateness(seen: dict[str, list[datetime]], period_seconds: float) -> list[float]:
    """How late each look came, in seconds: the time since the one before, less the period, and never less than nothing."""
    return [
        max(0.0, (later - earlier).total_seconds() - period_seconds) for moments in seen.values() for earlier, later in zip(moments, moments[1:], strict=False)
    ]


class _Bench:
    def __init__(self, stack: Runtime, home: Path, progress: Terminal) -> None:
        self._stack, self._home, self._progress = stack, home, progress
        self.load = " ".join(f"{value:.2f}" for value in os.getloadavg())

    def watch(self, names: list[str], *command: str, windows: int, deaths: int = 0) -> Watched:
        """Measure one watcher over the named streams."""
        runtime = self._prepare(names)
        found = Watched()
        with self._process("-m", "k2.bench.watched_world", str(self._home / "streams" / "world.json")) as world_process:
            self._line(world_process, "the watched world answers")
            with self._process(*command) as watcher:
                self._warm(runtime, names)
                process = psutil.Process(watcher.process.pid)
                for _ in range(windows):
                    found.cpu.append(self._window(runtime, process, found))
                    self._progress.say(f"{len(names)} streams, {'the poll' if command[0] == '-c' else 'the plain loop'}: {found.cpu[-1]:.2f} % of a core")
                self._check(runtime, names)
                found.told = [self._die(world_process, watcher, names[number * 7 % len(names)]) for number in range(1, deaths + 1)]
        return found

    def _warm(self, runtime: Runtime, names: list[str]) -> None:
        """Wait until every stream is judged well, and for what a first reading costs to be over."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while (well := self._well(runtime)) < len(names):
            if time.monotonic() > deadline:
                raise K2Error(f"only {well} of {len(names)} streams were judged well within {LIMIT_SECONDS:.0f} s; the logs are in {self._home / 'logs'}")
            time.sleep(1.0)
        time.sleep(PERIOD_SECONDS + WARM_SECONDS)

    def _window(self, runtime: Runtime, process: psutil.Process, found: Watched) -> float:
        seen: dict[str, list[datetime]] = {}
        with psycopg.connect(**runtime.conninfo("reader"), autocommit=True) as connection:  # type: ignore[arg-type]
            begun, before = time.monotonic(), process.cpu_times()
            while time.monotonic() - begun < WINDOW_SECONDS:
                for name, at in connection.execute("SELECT stream, seen_at FROM k2.verdicts").fetchall():
                    moments = seen.setdefault(name, [])
                    if not moments or moments[-1] != at:
                        moments.append(at)
                time.sleep(1.0)
            seconds, after = time.monotonic() - begun, process.cpu_times()
        now = datetime.now(UTC)
        found.late += lateness(seen, PERIOD_SECONDS)
        # One that was not looked at again by now is late already.
        found.late += [late for moments in seen.values() if (late := (now - moments[-1]).total_seconds() - PERIOD_SECONDS - 1.0) > 0]
        return (after.user + after.system - before.user - before.system) / seconds * 100

    def _die(self, world_process: _Process, watcher: _Process, name: str) -> float:
        world_process.say(f"die {name}")
        died = json.loads(self._line(world_process, "a driver dies"))["at"]
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            event = json.loads(self._line(watcher, f"the death of {name} is told"))
            if name in event["streams"]:
                time.sleep(0.73)  # not in step with the poll
                return float(event["at"] - died)
        raise K2Error(f"the death of {name} was not told within {LIMIT_SECONDS:.0f} s; the logs are in {self._home / 'logs'}")

    def _check(self, runtime: Runtime, names: list[str]) -> None:
        """The figures count only if every stream was judged well, and by now."""
        if (well := self._well(runtime)) < len(names):
            raise K2Error(f"only {well} of {len(names)} streams were judged well in the last seconds; the logs are in {self._home / 'logs'}")

    def _well(self, runtime: Runtime) -> int:
        with psycopg.connect(**runtime.conninfo("reader")) as connection:  # type: ignore[arg-type]
            row = connection.execute(
                "SELECT count(*) FROM k2.verdicts WHERE verdict IN ('IDLE', 'PROGRESSING') AND seen_at > now() - interval '25 s'"
            ).fetchone()
        return int(row[0]) if row else 0

    def _prepare(self, names: list[str]) -> Runtime:
        """The registry, the database and the runtime of these streams. Their checkpoints are there already."""
        declared = yaml.safe_load(REGISTRY.read_text())
        silver = next(spec for spec in declared["streams"].values() if spec["type"] == "silver")
        bronze = declared["tables"][silver["reads"]]
        declared["tables"] |= {world.table(name): bronze for name in names}
        declared["streams"] = {name: silver | {"reads": world.table(name), "checkpoint": name, "trigger_seconds": PERIOD_SECONDS} for name in names}
        folder = self._home / "streams"
        (folder / "platform.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
        update = {
            "registry": folder / "platform.yaml",
            "agent_socket": folder / "socket" / "agent.sock",
            "checkpoints": folder / "checkpoints",
            "slack_api": None,
        }
        runtime = self._stack.model_copy(update=update)
        (folder / "runtime.json").write_text(runtime.model_dump_json())
        settings = world.Settings(runtime=runtime, streams=names, period_seconds=PERIOD_SECONDS, moving_share=MOVING_SHARE)
        (folder / "world.json").write_text(settings.model_dump_json())
        parse_platform(folder / "platform.yaml")
        self._fill(runtime, names)
        return runtime

    def _fill(self, runtime: Runtime, names: list[str]) -> None:
        begun = world.STARTED
        with psycopg.connect(**runtime.conninfo("admin"), autocommit=True) as connection:  # type: ignore[arg-type]
            connection.execute("TRUNCATE k2.streams, k2.launches, k2.verdicts, k2.incidents, k2.watchers, iceberg_tables CASCADE")
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany("INSERT INTO k2.streams (stream, fence) VALUES (%s, 1)", [(name,) for name in names])
                cursor.executemany(
                    "INSERT INTO k2.launches (stream, fence, generation, reason, intent_at, launched_at, first_commit_at, first_commit_batch)"
                    " VALUES (%s, 1, 1, 'bench', %s, %s, %s, 0)",
                    [(name, begun, begun, begun) for name in names],
                )
                for name in names:
                    world.point(connection, runtime, name, world.committed_snapshot(read_tail(runtime.checkpoints / name)))
            connection.execute("ANALYZE")

    @contextmanager
    def _process(self, *arguments: str) -> Iterator[_Process]:
        folder = self._home / "streams"
        environment = {**os.environ, "K2_RUNTIME": str(folder / "runtime.json"), "PYTHONPATH": str(self._stack.tree / "include")}
        environment["AIRFLOW_HOME"] = str(folder / "airflow")
        made = _Process(
            [sys.executable, *arguments], environment, self._home / "logs" / f"{arguments[-1].split(chr(10))[0][-20:].replace('/', '_') or 'poll'}.log"
        )
        try:
            yield made
        finally:
            made.end()

    def _line(self, process: _Process, what: str) -> str:
        try:
            return process.lines.get(timeout=LIMIT_SECONDS)
        except queue.Empty:
            raise K2Error(f"not within {LIMIT_SECONDS:.0f} s: {what}; the logs are in {self._home / 'logs'}") from None


class _Process:
    """A child whose lines on standard output wait in a queue."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        with log.open("ab") as errors:
            self.process: subprocess.Popen[str] = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.put(line)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
