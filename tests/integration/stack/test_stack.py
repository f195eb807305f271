"""The stack's own promises, on small stacks of their own: repeatable, adoptable, gone after `down`."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from k2.processes import ProcessId
from k2.registry.files import REGISTRY
from k2.registry.runtime import Runtime
from k2.stack import control, records
from k2.stack.errors import K2Error
from k2.stack.home import TREE, Home
from k2.stack.jars import cache_folder
from k2.stack.status import read_status
from k2.state import streams
from k2.state.database import connect

SMALL = ("postgres",)


@pytest.fixture
def home() -> Iterator[Home]:
    """A K2_HOME of one test; its stack is stopped at the end."""
    path = Path(tempfile.mkdtemp(prefix="k2-small-"))
    path.chmod(0o755)
    yield Home(path)
    assert not control.down(path).left
    shutil.rmtree(path)


def k2(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user of this home would type it."""
    environment = os.environ | {"K2_HOME": str(home.path)}
    return subprocess.run(
        [sys.executable, "-m", "k2.stack.cli", *arguments], env=environment, cwd=TREE / "include", capture_output=True, text=True, check=False
    )


def kill_supervisor(home: Home) -> None:
    supervisor = records.supervisor_of(home)
    assert supervisor is not None
    supervisor.send(signal.SIGKILL)
    until(lambda: not supervisor.alive)


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def test_up_adopts_what_a_killed_supervisor_left(home: Home) -> None:
    """The same processes go on, under a new supervisor that starts them again when they die."""
    control.up(home.path, services=SMALL)
    before = records.living(home)
    kill_supervisor(home)
    assert records.living(home) == before
    assert k2(home, "status").returncode == 1
    control.up(home.path, services=SMALL)
    assert records.living(home) == before
    assert k2(home, "status").returncode == 0
    before["postgres"].send(signal.SIGKILL)
    until(lambda: (s := read_status(home).services[0]).restarts >= 1 and s.state == "healthy")
    assert records.living(home)["postgres"] != before["postgres"]


def test_down_leaves_nothing_although_the_supervisor_was_killed(home: Home) -> None:
    """Neither a recorded process nor one that names the runtime is left, and a second `down` finds nothing."""
    control.up(home.path, services=SMALL)
    processes = records.everything(home)
    kill_supervisor(home)
    done = k2(home, "down")
    assert done.returncode == 0, done.stderr
    assert "Stopped 1 services" in done.stdout
    assert [p for p in processes if p.alive] == []
    assert records.of_runtime(home.runtime_file) == []
    assert "Nothing was running" in k2(home, "down").stdout


def test_down_ends_a_process_without_a_record(home: Home) -> None:
    """A process that only its environment ties to the platform is found, and one of another home is not touched."""
    runtime = control.up(home.path, services=SMALL)
    sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
    ours = subprocess.Popen(sleep, env=os.environ | {"K2_RUNTIME": str(home.runtime_file)}, start_new_session=True)
    other = subprocess.Popen(sleep, env=os.environ | {"K2_RUNTIME": f"{runtime.home}-other/run/runtime.json"}, start_new_session=True)
    try:
        report = control.down(home.path)
        assert (report.killed, report.left) == (1, [])
        assert ours.wait(5) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_two_homes_live_side_by_side(base_stack: Runtime, home: Home) -> None:
    """Taken ports are replaced, and stopping one platform leaves the other alone."""
    runtime = control.up(home.path, services=SMALL)
    assert runtime.postgres_port != base_stack.postgres_port
    neighbours = records.living(Home(base_stack.home))
    assert control.down(home.path).left == []
    assert records.living(Home(base_stack.home)) == neighbours
    assert control.up(home.path, services=SMALL).postgres_port == runtime.postgres_port


def test_a_second_up_is_safe_and_another_profile_is_refused(home: Home) -> None:
    """The same `up` changes no process; another profile is one sentence and exit 2."""
    assert k2(home, "up", "--services", "postgres").returncode == 0
    before = records.living(home)
    assert k2(home, "up", "--services", "postgres").returncode == 0
    assert records.living(home) == before
    refused = k2(home, "up", "--profile", "demo", "--services", "postgres")
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1] == "k2: the platform runs with profile standard: run ./k2 down first, or ./k2 up --profile standard"


def test_up_from_another_tree_is_refused(home: Home, tmp_path: Path) -> None:
    """The message names the tree that the platform was started from."""
    control.up(home.path, services=SMALL)
    shutil.copytree(TREE / "include", tmp_path / "include")
    command = [sys.executable, "-m", "k2.stack.cli", "up", "--services", "postgres"]
    environment = os.environ | {"K2_HOME": str(home.path), "PYTHONPATH": str(tmp_path / "include")}
    refused = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"was started from {TREE}: stop it with {TREE}/k2 down" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_up_goes_on_as_the_last_time(home: Home) -> None:
    """Profile and source of the trades are those of the first start; a token makes the next start tell Slack itself."""
    first = control.up(home.path, profile="demo", services=SMALL, real_exchanges=True)
    assert first.slack_api is not None
    control.down(home.path)
    (home.secrets / "slack_token").write_text("xoxb-real")
    again = control.up(home.path, services=SMALL)
    assert (again.profile, again.exchange_simulator, again.feed_urls, again.slack_api) == ("demo", None, {}, None)
    assert control.up(home.path, services=SMALL) == again


def test_a_registry_counts_from_the_up_that_applies_it(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit changes nothing that runs, not even one with a mistake; `up` registers what is new, and no process that keeps state is started again."""
    source = tmp_path / "platform.yaml"
    declared = yaml.safe_load(REGISTRY.read_text())
    source.write_text(yaml.safe_dump(declared))
    monkeypatch.setenv("K2_PLATFORM", str(source))
    runtime = control.up(home.path, services=SMALL)
    before = records.living(home)
    declared["streams"]["bronze_more"] = declared["streams"]["bronze_kraken"] | {"checkpoint": "bronze-more"}
    source.write_text(yaml.safe_dump(declared))
    assert f"{source} has changed since it was applied: ./k2 up applies it." in " ".join(k2(home, "status").stdout.split())
    assert "bronze_more" not in runtime.platform.streams
    assert control.up(home.path, services=SMALL) == runtime and records.living(home) == before
    assert "bronze_more" in runtime.platform.streams
    with connect(runtime, "reader") as connection:
        assert streams.wanted(connection, "bronze_more").fence == 0
    source.write_text("streams: [")
    refused = k2(home, "up", "--services", "postgres")
    assert refused.returncode == 2 and "platform.yaml: not YAML" in refused.stderr
    shown = k2(home, "status")
    assert "bronze_more" in shown.stdout and shown.returncode == 0
    del declared["streams"]["bronze_more"]
    source.write_text(yaml.safe_dump(declared))
    control.up(home.path, services=SMALL)
    assert "bronze_more" not in k2(home, "status").stdout and records.living(home) == before


def test_a_service_that_cannot_start_is_named(home: Home) -> None:
    """Broken data: `up` ends with the service, its last words and where to read on, and the rest can be stopped."""
    control.up(home.path, services=SMALL)
    control.down(home.path)
    (home.data / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(K2Error, match=r"postgres does not stay up: exit code 1.*version 9\.6.*\./k2 logs postgres"):
        control.up(home.path, services=SMALL)


def test_roles_are_separate(base_stack: Runtime) -> None:
    """Only the administrator is a superuser, Airflow sees its own database alone, and a reader cannot write."""
    with psycopg.connect(**base_stack.conninfo("admin")) as connection:  # type: ignore[arg-type]
        roles = dict(connection.execute("SELECT rolname, rolsuper FROM pg_roles WHERE rolname LIKE 'k2\\_%'").fetchall())
    assert roles == {"k2_admin": True, "k2_airflow": False, "k2_control": False, "k2_writer": False, "k2_reader": False, "k2_spare": False}
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(**base_stack.conninfo("airflow"))  # type: ignore[arg-type]
    for role in ("reader", "writer", "control", "spare"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(**(base_stack.conninfo(role) | {"dbname": "airflow"}))  # type: ignore[arg-type]
    with psycopg.connect(**base_stack.conninfo("reader")) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):  # type: ignore[arg-type]
        connection.execute("UPDATE k2.streams SET desired = 'stopped'")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**(base_stack.conninfo("reader") | {"password": "guess"}))  # type: ignore[arg-type]


def test_topics_and_schemas_are_as_declared(base_stack: Runtime) -> None:
    """Partitions, retention and compression per exchange; compatibility BACKWARD; one subject per topic."""
    import httpx
    from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

    client = AdminClient({"bootstrap.servers": base_stack.kafka})
    topics = client.list_topics(timeout=10).topics
    for exchange in base_stack.platform.exchanges.values():
        assert len(topics[exchange.topic].partitions) == exchange.partitions
        resource = ConfigResource(ResourceType.TOPIC, exchange.topic)
        config = client.describe_configs([resource])[resource].result(10)
        assert config["retention.ms"].value == str(exchange.retention_days * 86_400_000)
        assert config["compression.type"].value == "lz4"
    with httpx.Client(base_url=base_stack.schema_registry) as registry:
        assert registry.get("/config").json()["compatibilityLevel"] == "BACKWARD"
        assert set(registry.get("/subjects").json()) >= {e.subject for e in base_stack.platform.exchanges.values()}


@pytest.fixture
def stranger() -> Iterator[pwd.struct_passwd]:
    """A user of this machine without any right, made for one test."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; this run is an unprivileged one already")
    name = f"k2test{os.getpid()}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True)
    yield pwd.getpwnam(name)
    subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def share(source: Path, target: Path) -> None:
    """A copy that everybody can read: hard links where the file system allows."""
    linked = subprocess.run(["cp", "--archive", "--link", source, target], capture_output=True, check=False)
    if linked.returncode:
        subprocess.run(["rm", "-rf", target], check=True)
        subprocess.run(["cp", "--archive", source, target], check=True)


def test_an_unprivileged_user_can_run_the_stack(stranger: pwd.struct_passwd) -> None:
    """From the script on, with an own home, a cache that is only readable, and no process of anybody else."""
    interpreter = Path(sys.executable).resolve()
    if not os.access(interpreter, os.X_OK) or interpreter.is_relative_to(Path.home()):
        pytest.skip(f"{interpreter} lies in a folder of this user: nobody else can run it")
    shared = Path(tempfile.mkdtemp(prefix="k2-shared-"))
    try:
        shared.chmod(0o755)
        (shared / "cache").mkdir()
        share(Path(sys.prefix), shared / "cache" / Path(sys.prefix).name)
        for folder in cache_folder().glob("jars-*[!k]"):
            share(folder, shared / "cache" / folder.name)
        (shared / "tree").mkdir()
        shutil.copytree(TREE / "include", shared / "tree" / "include", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("k2", "requirements.txt"):
            shutil.copy2(TREE / name, shared / "tree" / name)
        home = Path(stranger.pw_dir) / "platform"
        environment = {"HOME": stranger.pw_dir, "PATH": "/usr/local/bin:/usr/bin:/bin", "K2_HOME": str(home), "K2_CACHE": str(shared / "cache")}

        def as_stranger(*arguments: str) -> subprocess.CompletedProcess[str]:
            groups = [group.gr_gid for group in grp.getgrall() if stranger.pw_name in group.gr_mem]
            return subprocess.run(
                [str(shared / "tree" / "k2"), *arguments],
                **{"user": stranger.pw_uid, "group": stranger.pw_gid, "extra_groups": groups, "env": environment, "cwd": stranger.pw_dir},
                **{"capture_output": True, "text": True, "check": False, "umask": 0o022},
            )  # fmt: skip

        started = as_stranger("up", "--services", "postgres,kafka,schema_registry")
        try:
            assert started.returncode == 0, started.stderr
            status = json.loads(as_stranger("status", "--json").stdout)
            assert {s["name"]: s["state"] for s in status["services"]} == dict.fromkeys(("postgres", "kafka", "schema_registry"), "healthy")
            owners = {Path(f"/proc/{p.pid}").stat().st_uid for p in records.everything(Home(home))}
            assert owners == {stranger.pw_uid}
        finally:
            stopped = as_stranger("down")
        assert stopped.returncode == 0, stopped.stderr
        assert [p for p in map(ProcessId.of, _pids_of(stranger.pw_uid)) if p] == []
    finally:
        shutil.rmtree(shared)


def _pids_of(uid: int) -> list[int]:
    import psutil

    return [p.pid for p in psutil.process_iter(["uids"]) if p.info["uids"] and p.info["uids"].real == uid]
