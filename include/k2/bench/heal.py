"""How long a stream whose JVM was killed with -9 takes to its next commit of rows produced after the kill: `./k2 bench heal`.

The whole platform runs, Airflow included, in a home of its own with the standard profile; of the streams, Bronze of
Binance alone. Each round kills three times: with a warm spare, without one, and the same job as a plain script under
`while true; do spark-submit ...; done`, on the same topic and machine, while the suite's own driver is stopped. A round's
times are read from the checkpoints: the commit log's first file whose offsets are past what Kafka held at the kill.

Then the other ways for a driver to end, with a spare as the platform has it: k2.bench.deaths has them, and the second
kill of a stream whose spare was used up by the first.

The restart backoff is set to 0, because every kill stands for a first death.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import yaml

from k2.bench.deaths import DEATHS, Death, kill_jvm
from k2.bench.report import Figure, Report, machine
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.launchers import sessions
from k2.launchers.records import alive, read_all
from k2.launchers.spares import read_spares
from k2.percentiles import percentile
from k2.probes.kafka import KafkaHeads
from k2.processes import ProcessId
from k2.registry.files import REGISTRY
from k2.registry.observed import Checkpoint
from k2.registry.runtime import Runtime
from k2.stack import control
from k2.stack.errors import K2Error
from k2.stack.java import find_java
from k2.stack.progress import Silent, Terminal
from k2.stack.temporary import temporary_home
from k2.state import streams
from k2.state.database import connect

ROUNDS = 20
ROUNDS_OF_OTHERS = 5
SECOND_KILL = "second kill, spare not refilled"
STREAM = "bronze_binance"
RIVAL = "while true; do spark-submit; done"
LIMIT_SECONDS = 240.0
SETTLED_COMMITS = 2


def run(rounds: int = ROUNDS) -> Report:
    """Kill three times a round. Raises K2Error when a stream does not come back."""
    arms: dict[str, list[float]] = {"spare": [], "cold": [], "bare": []}
    others: dict[str, list[float]] = {name: [] for name in (*DEATHS, SECOND_KILL)}
    with Terminal() as progress, temporary_home("heal", progress=progress) as home:
        declared = yaml.safe_load(REGISTRY.read_text())
        declared["restart"]["backoff_seconds"] = [0]
        (home / "platform.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
        os.environ["K2_PLATFORM"] = str(home / "platform.yaml")
        runtime = control.up(home, progress=progress)
        bench = _Bench(runtime, home)
        _want({name: name == STREAM for name in runtime.platform.streams}, runtime)
        for number in range(1, rounds + 1):
            progress.say(f"round {number} of {rounds}")
            arms["spare"].append(bench.heal(with_spare=True))
            arms["cold"].append(bench.heal(with_spare=False))
            _want({STREAM: False}, runtime)
            arms["bare"].append(bench.heal_bare())
            _want({STREAM: True}, runtime)
            progress.say(", ".join(f"{arm} {times[-1]:.1f} s" for arm, times in arms.items()))
        for number in range(1, min(rounds, ROUNDS_OF_OTHERS) + 1):
            progress.say(f"other ends, round {number} of {min(rounds, ROUNDS_OF_OTHERS)}")
            for name, inflict in DEATHS.items():
                others[name].append(bench.heal_from(inflict))
            others[SECOND_KILL].append(bench.heal_again())
            progress.say(", ".join(f"{name} {times[-1]:.1f} s" for name, times in others.items()))
    return Report("heal", machine(), figures(arms["spare"], arms["cold"], arms["bare"]) + tuple(Figure.of(name, times, "s") for name, times in others.items()))


def figures(spare: list[float], cold: list[float], bare: list[float]) -> tuple[Figure, ...]:
    """Medians and 95th percentiles, each against the same of the rival."""
    ours, rival = percentile(spare, 95), percentile(bare, 95)
    p95 = Figure("p95 with spare", round(ours, 3), "s", RIVAL, round(rival, 3), round(ours / rival, 3), tuple(spare))
    return (
        Figure.of("p50 with spare", spare, "s", rival=RIVAL, rival_samples=bare),
        p95,
        Figure.of("p50 cold", cold, "s", rival=RIVAL, rival_samples=bare),
    )


def _want(wishes: dict[str, bool], runtime: Runtime) -> None:
    with connect(runtime, "control") as connection:
        for stream, runs in wishes.items():
            desired = "running" if runs else "stopped"
            if streams.wanted(connection, stream).desired != desired:
                streams.want(connection, stream, desired, who="bench", action="heal", reason="./k2 bench heal")


class _Bench:
    def __init__(self, runtime: Runtime, home: Path) -> None:
        self._runtime, self._home = runtime, home
        self._topic = runtime.platform.exchanges[runtime.platform.streams[STREAM].exchange].topic

    def heal(self, *, with_spare: bool) -> float:
        """Seconds from the kill of the driver's JVM to the commit that is sought."""
        checkpoint = self._ready()
        if not with_spare:
            for process, _ in read_spares(self._runtime).values():
                sessions.kill(process)
        how = "spare" if with_spare else "cold"
        seconds = self._until_commit(checkpoint, lambda: kill_jvm(self._driver()))
        found = max((r for r in read_all(self._runtime)[0] if r.stream == STREAM), key=lambda record: record.fence)
        if found.how != how:
            raise K2Error(f"the stream came back by a {found.how} start, this was to measure a {how} one: run the benchmark on a quiet machine")
        return seconds

    def heal_bare(self) -> float:
        """The same of the plain script in its loop."""
        _until(lambda: not self._drivers(), "the suite's own driver is stopped")
        self._until_warm()  # a spare that warms up would take the processor from the rival
        with self._loop() as leader:
            checkpoint = self._home / "bare" / "checkpoint"
            self._settle(checkpoint)
            return self._until_commit(checkpoint, lambda: kill_jvm(leader()))

    def heal_from(self, inflict: Death) -> float:
        """The same from the moment that another end of the driver is told by, with a warm spare."""
        checkpoint = self._ready()
        return self._until_commit(checkpoint, lambda: inflict(self._runtime, self._driver()))

    def heal_again(self) -> float:
        """The same of a kill that comes as soon as the driver has come back from an earlier one."""
        checkpoint = self._ready()
        self._until_commit(checkpoint, lambda: kill_jvm(self._driver()))
        return self._until_commit(checkpoint, lambda: kill_jvm(self._driver()))

    def _ready(self) -> Path:
        checkpoint = self._runtime.checkpoint(STREAM)
        self._settle(checkpoint)
        self._until_warm()
        return checkpoint

    def _until_warm(self) -> None:
        _until(lambda: any(warm for _, warm in read_spares(self._runtime).values()), "a spare is warm")

    def _until_commit(self, checkpoint: Path, inflict: Callable[[], float]) -> float:
        """Seconds from the moment that `inflict` tells to the first commit of rows that came later."""
        killed = inflict()
        ends = sum(self._ends().values())
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            tail = _tail(checkpoint)
            if tail is not None and tail.committed is not None and tail.last_commit_at is not None and sum(tail.committed[self._topic].values()) > ends:
                return tail.last_commit_at.timestamp() - killed
            time.sleep(0.02)
        raise K2Error(f"no commit came within {LIMIT_SECONDS:.0f} s of the kill: see the logs in {self._home}")

    def _settle(self, checkpoint: Path) -> None:
        """Wait for a few commits, so that no start-up work is under way any more."""
        first = _last_batch(checkpoint)
        _until(lambda: _last_batch(checkpoint) >= first + SETTLED_COMMITS, "the stream commits")

    def _ends(self) -> dict[str, int]:
        with closing(KafkaHeads(self._runtime.kafka)) as heads:
            return heads.ends([self._topic])[self._topic]

    def _drivers(self) -> list[ProcessId]:
        return [r.process for r in read_all(self._runtime)[0] if r.stream == STREAM and r.process is not None and alive(r)]

    def _driver(self) -> ProcessId:
        return self._drivers()[-1]

    @contextmanager
    def _loop(self) -> Iterator[Callable[[], ProcessId]]:
        """The restart loop, as a shell would run it. Yields what finds the process that runs now."""
        command, environment = (
            self._bare_command(),
            {**os.environ, "JAVA_HOME": str(find_java(Silent())), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
        )
        current: list[subprocess.Popen[bytes]] = []
        over = threading.Event()

        def loop() -> None:
            with (self._home / "bare" / "log").open("ab") as log:
                while not over.is_set():
                    current[:] = [subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)]
                    current[0].wait()

        def leader() -> ProcessId:
            process = ProcessId.of(current[0].pid)
            if process is None:
                raise K2Error(f"the plain script does not run: see {self._home / 'bare' / 'log'}")
            return process

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            _until(lambda: bool(current), "the plain script starts")
            yield leader
        finally:
            over.set()
            while thread.is_alive():
                for process in filter(None, (ProcessId.of(child.pid) for child in current)):
                    sessions.kill(process)
                thread.join(0.2)

    def _bare_command(self) -> list[str]:
        spec = self._runtime.platform.streams[STREAM]
        folder = self._home / "bare"
        folder.mkdir(exist_ok=True)
        settings = {
            "kafka": self._runtime.kafka,
            "topic": self._topic,
            "max_rows": spec.max_rows_per_trigger,
            "trigger": f"{spec.trigger_seconds} seconds",
            "checkpoint": (folder / "checkpoint").as_uri(),
            "catalog": {
                "spark.sql.catalog.bare": "org.apache.iceberg.spark.SparkCatalog",
                "spark.sql.catalog.bare.type": "jdbc",
                "spark.sql.catalog.bare.uri": f"jdbc:postgresql://{self._runtime.postgres_host}:{self._runtime.postgres_port}/lakehouse",
                "spark.sql.catalog.bare.jdbc.schema-version": "V1",
                "spark.sql.catalog.bare.jdbc.user": "k2_control",
                "spark.sql.catalog.bare.jdbc.password": self._runtime.password("control"),
                "spark.sql.catalog.bare.warehouse": (folder / "warehouse").as_uri(),
            },
        }
        file = folder / "settings.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(settings))
        options = {
            "spark.master": "local[2]",
            "spark.driver.memory": f"{spec.heap_mb}m",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.extraClassPath": str(self._runtime.jars / "spark" / "*"),
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "1",
        }
        import pyspark

        submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
        conf = [part for key, value in options.items() for part in ("--conf", f"{key}={value}")]
        return [str(submit), *conf, str(Path(__file__).with_name("bare_bronze.py")), str(file)]


def _tail(checkpoint: Path) -> Checkpoint | None:
    """None while it cannot be read, as when it is written just now."""
    try:
        return read_tail(checkpoint)
    except CheckpointUnreadable:
        return None


def _last_batch(checkpoint: Path) -> int:
    tail = _tail(checkpoint)
    return (tail.last_commit_batch if tail else None) or 0


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise K2Error(f"not within {LIMIT_SECONDS:.0f} s: {what}")
        time.sleep(0.1)
