"""Start and stop the embedded stack from Python: what the commands, the demo and the tests call."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from k2.alerts.direct import slack_token
from k2.processes import ProcessId, end
from k2.registry.files import REGISTRY
from k2.registry.made_of import fingerprint
from k2.registry.platform import ConfigError, Platform, parse_platform, read_registry
from k2.registry.runtime import Replay, Runtime
from k2.stack import applied, plan, ports, preflight, records
from k2.stack.archive import ensure_archive
from k2.stack.drivers import recorded_drivers
from k2.stack.errors import K2Error
from k2.stack.home import TREE, Home, read_json, write_atomically
from k2.stack.jars import ensure_jars
from k2.stack.java import find_java
from k2.stack.progress import Progress, Silent
from k2.stack.supervisor import LEAVE, Phase, stop_orphans

START_SECONDS = 300
SUPERVISOR_SECONDS = 20
STOP_SECONDS = 180
LEAVE_SECONDS = 5
GIVE_UP_AFTER_FAILURES = 3
STANDARD = "standard"
"""The profile of a home in which no other one was asked for."""
READY = (Phase.HEALTHY, Phase.DONE)


@dataclass
class DownReport:
    """What `down` ended. `left` is empty unless something could not even be killed."""

    stopped: list[str] = field(default_factory=list)
    drivers: list[str] = field(default_factory=list)
    killed: int = 0
    """Processes that no orderly stop reached."""
    left: list[ProcessId] = field(default_factory=list)


def up(
    home: Path | None = None,
    profile: str | None = None,
    services: Sequence[str] | None = None,
    *,
    real_exchanges: bool | None = None,
    replay: Replay | None = None,
    proxied: Sequence[str] = (),
    progress: Progress | None = None,
) -> Runtime:
    """Start the platform, or only the named services and what they need, and wait until all of them are healthy.

    The streams in `proxied` reach Kafka through a proxy that can cut them off. Without a profile, or a word on the exchanges,
    each is as it was the last time in this home; the first time it is the standard profile and the exchange simulator.

    Safe to repeat: what runs already is left alone, unless it keeps no state and the code or platform.yaml has changed since
    its start. Raises K2Error or ConfigError with what is wrong and the fix.
    """
    progress = progress or Silent()
    here = Home.at(home)
    last = here.runtime()
    profile = profile or (last.profile if last else STANDARD)
    real_exchanges = _source(here, last, real_exchanges)
    preflight.check_machine()
    source = applied.source(here)
    text = read_registry(source)
    platform = parse_platform(source, text).with_profile(profile)
    java_home = find_java(progress)
    here.create()
    progress.now("waiting for another k2 that starts or stops this platform")
    with here.locked("up.lock", wait=True):
        running = records.living(here)
        supervised = _is_supervised(here)
        if last:
            applied.check_drivers(last, platform)
        if running or supervised:
            runtime = _same_platform(here, profile, replay)
            chosen = read_json(here.ports_file) or {}
            applied.check_exchanges(runtime, platform, chosen)
        else:
            runtime = _lay_out(here, text, platform, profile, real_exchanges, replay, proxied, java_home, progress)
            chosen = read_json(here.ports_file) or {}
        the_plan = plan.services(here, runtime, chosen, java_home)
        names = plan.closure(the_plan, services if services is not None else the_plan)
        preflight.check_memory(preflight.budget_mb(platform, set(names) - set(running)), preflight.available_memory_mb())
        before = read_json(here.wanted_file) or {}
        kept = before.get("services", []) if running or supervised else []
        wanted = {
            "serial": before.get("serial", 0) + 1,
            "services": [n for n in the_plan if n in {*kept, *names}],
            "java_home": str(java_home),
            "registry": None if source == REGISTRY else str(source),
        }
        applied.apply(here, text)
        write_atomically(here.wanted_file, json.dumps(wanted))
        if supervised and _is_current(here, runtime):
            _supervisor(here).send(signal.SIGHUP)  # it reads run/wanted.json again
        else:
            if supervised:
                progress.say("the code or platform.yaml has changed: what keeps no state is started again, the drivers go on")
                _end_supervisor(here)
            _start_supervisor(here, runtime, java_home)
    _wait_until_healthy(here, names, wanted["serial"], progress)
    return runtime


def _source(home: Home, last: Runtime | None, real_exchanges: bool | None) -> bool:
    """Whether the trades are those of the real exchanges, as ever in this home. Raises K2Error when they are not to be any more."""
    if last is None:
        return bool(real_exchanges)
    before = last.exchange_simulator is None
    if real_exchanges not in (None, before):
        kinds = ("real", "generated") if before else ("generated", "real")
        raise K2Error(f"the tables of {home.path} hold {kinds[0]} trades, and {kinds[1]} ones would come among them: set K2_HOME to another folder")
    return before


def _is_supervised(home: Home) -> bool:
    with home.locked("lock", wait=False) as free:
        return not free


def _is_current(home: Home, runtime: Runtime) -> bool:
    """Whether the running supervisor was started with the code and the configuration of now."""
    _supervisor(home)
    return (read_json(home.state_file) or {}).get("made_of") == fingerprint(runtime)


def _end_supervisor(home: Home) -> None:
    """It takes nothing along, however it ends."""
    supervisor = _supervisor(home)
    supervisor.send(LEAVE)
    deadline = time.monotonic() + LEAVE_SECONDS
    while supervisor.alive:
        if time.monotonic() > deadline:
            supervisor.send(signal.SIGKILL)
        time.sleep(0.02)


def _supervisor(home: Home) -> ProcessId:
    """The supervisor that runs. One that is just starting can be told something once it has published."""
    deadline = time.monotonic() + SUPERVISOR_SECONDS
    while (supervisor := records.supervisor_of(home)) is None:
        if time.monotonic() > deadline:
            raise K2Error(f"the supervisor of {home.path} runs but does not answer: run ./k2 down, then ./k2 up")
        time.sleep(0.05)
    return supervisor


def _same_platform(home: Home, profile: str, replay: Replay | None) -> Runtime:
    """The runtime of the platform that runs in this home, if it is the one that is asked for."""
    runtime = home.runtime()
    if runtime is None:
        raise K2Error(f"processes of a platform run in {home.path}, but {home.runtime_file} is gone: run ./k2 down, then ./k2 up")
    if runtime.tree != TREE:
        raise K2Error(f"the platform of {home.path} was started from {runtime.tree}: stop it with {runtime.tree}/k2 down, or set K2_HOME to another folder")
    if runtime.profile != profile:
        raise K2Error(f"the platform runs with profile {runtime.profile}: run ./k2 down first, or ./k2 up --profile {runtime.profile}")
    if replay is not None and replay != runtime.replay:
        raise K2Error("the platform's exchange simulator does not play these recordings: run ./k2 down first")
    return runtime


def _lay_out(
    home: Home,
    registry: str,
    platform: Platform,
    profile: str,
    real_exchanges: bool,
    replay: Replay | None,
    proxied: Sequence[str],
    java_home: Path,
    progress: Progress,
) -> Runtime:
    """Everything that must be there before the first process: jars, ports, passwords, platform.yaml as applied, runtime.json."""
    preflight.check_disk(home.path)
    jars = ensure_jars(java_home, progress)
    ensure_archive(jars, java_home, home.logs / "archive.log", progress)
    usual = ports.usual_ports(platform) | ports.proxied_ports(proxied)
    chosen = ports.choose(usual | {n: p for n, p in (read_json(home.ports_file) or {}).items() if n in usual})
    other = {name: port for name, port in chosen.items() if port != usual[name]}
    if other:
        progress.say("other ports than the usual ones: " + ", ".join(f"{name} {port}" for name, port in other.items()))
    for role in ("admin", "airflow", "control", "writer", "reader", "spare"):
        home.secret(f"postgres_{role}")
    airflow_password = home.secrets / "airflow_admin"
    home.secret(airflow_password.name)
    simulator = f"127.0.0.1:{chosen['exchange_simulator']}"
    # The path stays: it is by the path that Kraken's protocols differ.
    urls = {name: urlsplit(exchange.feed.url)._replace(scheme="ws", netloc=simulator).geturl() for name, exchange in platform.exchanges.items()}
    runtime = Runtime(
        profile=profile,
        registry=home.registry_file,
        home=home.path,
        tree=TREE,
        jars=jars,
        kafka=f"127.0.0.1:{chosen['kafka']}",
        kafka_of={stream: f"127.0.0.1:{chosen[f'kafka_proxy_{stream}']}" for stream in proxied},
        kafka_proxy=f"http://127.0.0.1:{chosen['kafka_proxy_control']}" if proxied else None,
        schema_registry=f"http://127.0.0.1:{chosen['schema_registry']}/apis/ccompat/v7",
        postgres_host="127.0.0.1",
        postgres_port=chosen["postgres"],
        airflow=f"http://127.0.0.1:{chosen['airflow']}",
        agent_socket=home.agent_socket(),
        warehouse=(home.data / "warehouse").as_uri(),
        checkpoints=home.data / "checkpoints",
        feed_urls={} if real_exchanges else urls,
        exchange_simulator=None if real_exchanges else f"http://127.0.0.1:{chosen['exchange_simulator_control']}",
        feed_symbols=_recorded_symbols(replay),
        replay=replay,
        slack_api=None if slack_token(home.secrets) else f"http://127.0.0.1:{chosen['slack_simulator']}",
    )
    for folder in (home.data / "warehouse", home.data / "checkpoints", runtime.schemas):
        folder.mkdir(exist_ok=True)
    write_atomically(home.ports_file, json.dumps(chosen))
    applied.apply(home, registry)
    write_atomically(home.runtime_file, runtime.model_dump_json(indent=1))
    return runtime


def _recorded_symbols(replay: Replay | None) -> dict[str, tuple[str, ...]]:
    """Per exchange, what its recordings hold; the feeds ask for all of it. Raises K2Error for a folder without recordings."""
    from k2.feeds.simulator.recordings import NoRecordings, read_recordings, symbols

    if replay is None:
        return {}
    try:
        return {exchange: tuple(sorted(found)) for exchange, found in symbols(read_recordings(replay.folder)).items()}
    except NoRecordings as error:
        raise K2Error(str(error)) from None


def _start_supervisor(home: Home, runtime: Runtime, java_home: Path) -> None:
    """As a daemon of its own session, so that neither the terminal nor this process takes it along."""
    with (home.logs / "supervisor.log").open("ab") as log:
        subprocess.run(
            ["setsid", "--fork", sys.executable, "-m", "k2.stack.supervisor", str(home.path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=plan.environment(home, runtime, java_home), cwd=home.path, check=True,
        )  # fmt: skip


def _wait_until_healthy(home: Home, names: Sequence[str], serial: int, progress: Progress) -> None:
    deadline = time.monotonic() + START_SECONDS
    told: set[str] = set()
    failures: dict[str, int] = {}
    began = time.monotonic()
    while True:
        state = read_json(home.state_file) or {}
        if records.supervisor_of(home) is None or state.get("serial", 0) < serial:
            if time.monotonic() - began > SUPERVISOR_SECONDS:
                raise K2Error(f"the supervisor did not start ({_last_line(home.logs / 'supervisor.log')}): see {home.logs / 'supervisor.log'}")
            time.sleep(0.05)
            continue
        services: dict[str, dict[str, Any]] = state["services"]
        for name in names:
            facts = services[name]
            if facts["phase"] in READY and name not in told:
                told.add(name)
                progress.say(f"{name} {'is healthy' if facts['phase'] == Phase.HEALTHY else 'is done'}")
            if facts["failures"] - failures.setdefault(name, facts["failures"]) >= GIVE_UP_AFTER_FAILURES:
                last = _last_line(home.logs / f"{name}.log")
                raise K2Error(f"{name} does not stay up: {facts['detail']} ({last}): see ./k2 logs {name}; ./k2 down stops the rest")
        waiting = {name: services[name]["detail"] or services[name]["phase"] for name in names if services[name]["phase"] not in READY}
        if not waiting:
            return
        if time.monotonic() > deadline:
            name = next(iter(waiting))
            raise K2Error(f"{name} is not healthy after {START_SECONDS} s ({waiting[name]}): see ./k2 logs {name}; ./k2 down stops the rest")
        progress.now("waiting for " + ", ".join(waiting))
        time.sleep(0.1)


def _last_line(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return "no log"
    return lines[-1][:300] if lines else "its log is empty"


def down(home: Path | None = None, *, progress: Progress | None = None) -> DownReport:
    """Stop the drivers and every service of this home, in order, and prove that nothing of it is left.

    Works also when the supervisor or the host agent was killed, and when nothing runs.
    """
    progress = progress or Silent()
    here = Home.at(home)
    report = DownReport()
    if not here.run.is_dir():
        return report
    with here.locked("up.lock", wait=True):
        runtime = here.runtime()
        report.stopped = list(records.living(here))
        report.drivers = list(recorded_drivers(runtime)) if runtime else []
        if supervisor := records.supervisor_of(here):
            supervisor.send(signal.SIGTERM)
            _follow_stop(here, supervisor, progress)
        if runtime and (records.living(here) or recorded_drivers(runtime)):
            progress.now("stopping what runs without a supervisor")
            try:
                stop_orphans(here)
            except ConfigError as error:
                progress.say(f"what is left is stopped without order: {error}")
        strays = records.everything(here, but=_own_family())
        if strays:
            progress.now(f"ending {len(strays)} more processes")
            end(strays, grace_seconds=5)
            report.killed = len(strays)
        report.left = records.everything(here, but=_own_family())
        for name in records.recorded(here):
            records.forget(here, name)
        here.state_file.unlink(missing_ok=True)
        if runtime and runtime.agent_socket.parent != here.run:
            shutil.rmtree(runtime.agent_socket.parent, ignore_errors=True)
    return report


def _own_family() -> list[int]:
    """This process and its parents, which may well name the runtime in their environment (a test run, a shell)."""
    import psutil

    return [os.getpid(), *(parent.pid for parent in psutil.Process().parents())]


def _follow_stop(home: Home, supervisor: ProcessId, progress: Progress) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    told: set[str] = set()
    while supervisor.alive and time.monotonic() < deadline:
        services = (read_json(home.state_file) or {}).get("services", {})
        for name, facts in services.items():
            if facts["phase"] == Phase.STOPPED and name not in told:
                told.add(name)
                progress.say(f"{name} stopped")
        progress.now("stopping " + ", ".join(name for name, facts in services.items() if facts["phase"] == Phase.STOPPING))
        time.sleep(0.1)
    if supervisor.alive:
        end([supervisor], grace_seconds=5)
