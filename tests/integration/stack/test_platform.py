"""The whole platform: what it shows to the machine and to its neighbours."""

from __future__ import annotations

import ipaddress
import stat
import time
from pathlib import Path

import httpx
import psutil

from k2.processes import ProcessId
from k2.registry.runtime import Runtime
from k2.stack import airflow, control, records
from k2.stack.drivers import recorded_drivers
from k2.stack.home import Home
from k2.stack.status import read_status


def listeners(processes: list[ProcessId]) -> set[tuple[str, str, int]]:
    """(program, address, port) of every TCP socket on which one of the processes listens."""
    found = set()
    for process in processes:
        try:
            program = psutil.Process(process.pid)
            for connection in program.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((program.name(), connection.laddr.ip, connection.laddr.port))
        except psutil.NoSuchProcess:
            continue
    return found


def test_everything_is_healthy(platform_stack: Runtime) -> None:
    """Each process of the registry runs and is healthy."""
    status = read_status(Home(platform_stack.home))
    states = {s.name: s.state for s in status.services}
    assert states == dict.fromkeys(platform_stack.platform.processes, "healthy") | {"airflow_setup": "done", "kafka_proxy": "healthy"}
    assert status.unknown == ""


def test_all_listeners_are_on_the_loopback(platform_stack: Runtime) -> None:
    """Spark drivers, log servers and simulators included; what a user can reach from outside is nothing."""
    wanted = set(platform_stack.platform.streams)
    deadline = time.monotonic() + 180
    while {tag.partition("#")[0] for tag in recorded_drivers(platform_stack) if (platform_stack.run / "drivers" / tag / "ready.json").is_file()} != wanted:
        assert time.monotonic() < deadline, f"these drivers run: {list(recorded_drivers(platform_stack))}"
        time.sleep(0.5)
    found = listeners(records.everything(Home(platform_stack.home)))
    open_to_others = {entry for entry in found if not (a := ipaddress.ip_address(entry[1])).is_loopback and not getattr(a, "ipv4_mapped", None)}
    mapped = {entry for entry in found if (m := getattr(ipaddress.ip_address(entry[1]), "ipv4_mapped", None)) and not m.is_loopback}
    assert open_to_others | mapped == set()
    assert {platform_stack.postgres_port, int(platform_stack.kafka.rpartition(":")[2]), int(platform_stack.airflow.rpartition(":")[2])} <= {f[2] for f in found}


def test_no_password_is_shown(platform_stack: Runtime) -> None:
    """In no command line, environment or log; every file that holds one is private."""
    home = Home(platform_stack.home)
    secrets = {path.name: path.read_text().strip().encode() for path in home.secrets.iterdir()}
    assert {"postgres_admin", "postgres_writer", "airflow_admin", "airflow_jwt"} <= set(secrets)
    shown = []
    for process in records.everything(home):
        for part in ("cmdline", "environ"):
            try:
                content = Path(f"/proc/{process.pid}/{part}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            shown += [(name, process.pid, part) for name, secret in secrets.items() if secret in content]
    holders = []
    for path in home.path.rglob("*"):
        if path.is_file() and not path.is_relative_to(home.data):
            content = path.read_bytes()
            holders += [(path, name) for name, secret in secrets.items() if secret in content]
    assert shown == []
    assert [(path, name) for path, name in holders if path.is_relative_to(home.logs)] == []
    assert {path for path, _ in holders if stat.S_IMODE(path.stat().st_mode) != 0o600} == set()


def test_the_api_server_wants_the_password(platform_stack: Runtime) -> None:
    """The generated one opens Airflow, another does not."""
    password = (platform_stack.secrets / "airflow_admin").read_text()
    with httpx.Client(base_url=platform_stack.airflow) as client:
        assert client.post("/auth/token", json={"username": airflow.LOGIN, "password": password}).status_code == 201
        assert client.post("/auth/token", json={"username": airflow.LOGIN, "password": "guess"}).status_code == 401
        assert client.get("/api/v2/dags").status_code == 401


def test_a_repeated_up_changes_nothing(platform_stack: Runtime) -> None:
    """It returns the same runtime, and every process is the one from before."""
    home = Home(platform_stack.home)
    before = records.living(home)
    assert control.up(home.path, profile=platform_stack.profile) == platform_stack
    assert records.living(home) == before
