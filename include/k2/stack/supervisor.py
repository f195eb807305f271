"""The supervisor of the embedded stack: `python -m k2.stack.supervisor HOME`, a daemon that `./k2 up` starts.

It starts each service as soon as what it needs is ready, starts what crashes again, and on SIGTERM stops all in
reverse order. Killed with -9 it takes nothing with it: the next one adopts the services that live, and starts those
again that keep no state and were started with other code or another platform.yaml. SIGHUP makes it read
run/wanted.json again, SIGUSR1 makes it leave as if it were killed, but not in the middle of a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from k2.launchers import sessions
from k2.launchers.records import boot_id
from k2.processes import ProcessId, end, family
from k2.registry.made_of import fingerprint
from k2.stack import plan, ports, records
from k2.stack.errors import K2Error
from k2.stack.home import Home, read_json, write_atomically
from k2.stack.service import Service, Unhealthy

log = logging.getLogger("k2.supervisor")

LEAVE = signal.SIGUSR1
BACKOFF_SECONDS = (1, 2, 4, 8, 16, 30)
STEADY_SECONDS = 60
"""A service that was healthy for so long begins with the first backoff again."""
CHECK_SECONDS = 5
LOST_CHECKS = 3
LOG_LIMIT = 20 * 1024 * 1024
HOUSEKEEPING_SECONDS = 60
AIRFLOW_LOG_DAYS = 7


class Phase(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    BACKOFF = "backoff"
    DONE = "done"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass
class Status:
    """One service as `status` shows it. Times are seconds since the epoch."""

    phase: Phase = Phase.WAITING
    since: float = 0
    pid: int | None = None
    started_at: float | None = None
    restarts: int = 0
    failures: int = 0
    """Failures since it was last healthy."""
    detail: str = ""


class Supervisor:
    def __init__(self, home: Home, services: Mapping[str, Service], environment: Mapping[str, str], made_of: str = "") -> None:
        self.home = home
        self.made_of = made_of
        self.plan = services
        self.environment = dict(environment)
        self.status: dict[str, Status] = {}
        self._ready: dict[str, asyncio.Event] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._old_sessions: set[ProcessId] = set()
        self._serial = 0
        self._identity = ProcessId.of(os.getpid()) or ProcessId(os.getpid(), 0)
        self._stop = asyncio.Event()

    @classmethod
    def of(cls, home: Home) -> Supervisor:
        """The supervisor of the platform that `up` laid out in this home."""
        runtime = home.runtime()
        wanted = read_json(home.wanted_file)
        if runtime is None or wanted is None:
            raise K2Error(f"{home.path} holds no platform: start it with ./k2 up")
        java_home = Path(wanted["java_home"])
        services = plan.services(home, runtime, read_json(home.ports_file) or {}, java_home)
        return cls(home, services, plan.environment(home, runtime, java_home), fingerprint(runtime))

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.apply)
        loop.add_signal_handler(LEAVE, os._exit, 0)
        self.apply()
        housekeeper = asyncio.create_task(self._keep_house())
        await self._stop.wait()
        housekeeper.cancel()
        await self.stop()

    def apply(self) -> None:
        """Start what run/wanted.json names and is not kept yet."""
        wanted = read_json(self.home.wanted_file) or {}
        for name in plan.closure(self.plan, wanted.get("services", [])):
            if name not in self._keepers:
                self.status[name] = Status(since=time.time())
                self._ready[name] = asyncio.Event()
                self._keepers[name] = asyncio.create_task(self._keep(self.plan[name]))
        self._serial = wanted.get("serial", 0)
        self._publish()

    def _publish(self) -> None:
        state = {
            "supervisor": records.as_record(self._identity),
            "made_of": self.made_of,
            "serial": self._serial,
            "services": {name: vars(status) for name, status in self.status.items()},
        }
        write_atomically(self.home.state_file, json.dumps(state))

    def _set(self, name: str, phase: Phase, detail: str = "", **facts: Any) -> None:
        status = self.status.setdefault(name, Status())
        if (status.phase, status.detail) != (phase, detail):
            log.info("%s: %s%s", name, phase, f" ({detail})" if detail else "")
        if status.phase != phase:
            status.since = time.time()
        status.phase, status.detail = phase, detail
        for key, value in facts.items():
            setattr(status, key, value)
        self._publish()

    async def _keep(self, service: Service) -> None:
        """One service's life: wait for its needs, then start, watch and start again."""
        for need in service.needs:
            self._set(service.name, Phase.WAITING, f"for {need}")
            await self._ready[need].wait()
        while True:
            reason = await self._once(service)
            status = self.status[service.name]
            if reason is None:
                self._set(service.name, Phase.DONE, pid=None, failures=0)
                self._ready[service.name].set()
                return
            if status.phase in (Phase.HEALTHY, Phase.UNHEALTHY) and time.time() - status.since > STEADY_SECONDS:
                status.failures = 0
            pause = BACKOFF_SECONDS[min(status.failures, len(BACKOFF_SECONDS) - 1)]
            self._set(service.name, Phase.BACKOFF, f"{reason}; next start in {pause} s", pid=None, failures=status.failures + 1, restarts=status.restarts + 1)
            await asyncio.sleep(pause)

    async def _once(self, service: Service) -> str | None:
        """Start (or adopt) a service and follow it to its end. Returns why it ended, None for a task that is done."""
        process = records.recall(self.home, service.name)
        try:
            if process is not None and service.stateless and records.made_of(self.home, service.name) != self.made_of:
                await self._end_outdated(service, process)
                process = None
            if process is None:
                await self._end_leftovers(service)
                self._set(service.name, Phase.STARTING)
                if service.prepare:
                    await asyncio.to_thread(service.prepare)
                process = self._start(service)
            else:
                log.info("%s: adopted process %d", service.name, process.pid)
        except Exception as error:  # noqa: BLE001 - whatever keeps one service from starting must not end the others' supervisor
            if not isinstance(error, K2Error | Unhealthy):
                log.exception("%s could not be started", service.name)
            return str(error)
        started = _started_at(process)
        self._set(service.name, Phase.STARTING, pid=process.pid, started_at=started.timestamp())
        exited = asyncio.create_task(self._exited(process))
        watching = asyncio.create_task(self._watch_health(service, started))
        try:
            await exited
        finally:
            watching.cancel()
            exited.cancel()
        child = self._children.pop(process.pid, None)
        code = child.returncode if child else None
        if service.is_task and code == 0:
            records.forget(self.home, service.name)
            return None
        return f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exit code {'unknown' if code is None else code}"

    def _start(self, service: Service) -> ProcessId:
        for port in service.ports:
            if not ports.is_free(port):
                raise Unhealthy(f"port {port} of 127.0.0.1 is in use by another program: end that program, or ./k2 down and ./k2 up to choose another port")
        with (self.home.logs / f"{service.name}.log").open("ab") as output:
            environment = self.environment | dict(service.env)
            child = subprocess.Popen(
                service.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=self.home.path, start_new_session=True
            )
        self._children[child.pid] = child
        process = ProcessId.of(child.pid) or ProcessId(child.pid, 0)
        records.remember(self.home, service.name, process, self.made_of)
        return process

    async def _exited(self, process: ProcessId) -> None:
        """Returns when the process is gone; works for one that this supervisor did not start."""
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(handle, gone.set)
        try:
            if process.alive:
                await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        if child := self._children.get(process.pid):
            child.wait()

    async def _watch_health(self, service: Service, started: datetime) -> None:
        if service.healthy is None:
            return
        lost = 0
        while True:
            pause = 0.2
            status = self.status[service.name]
            try:
                await service.healthy(started)
                if status.phase is Phase.STARTING and service.setup:
                    await asyncio.to_thread(service.setup)
                if status.phase is not Phase.HEALTHY:
                    self._set(service.name, Phase.HEALTHY, failures=0)
                    self._ready[service.name].set()
                lost = 0
            except Exception as error:  # noqa: BLE001 - a failed check is a reading, whatever its type
                if not isinstance(error, Unhealthy):
                    log.exception("%s: check or set-up failed", service.name)
                    pause = 2
                lost += 1
                if status.phase is Phase.STARTING:
                    self._set(service.name, Phase.STARTING, str(error))
                elif lost >= LOST_CHECKS:
                    self._set(service.name, Phase.UNHEALTHY, str(error))
            await asyncio.sleep(pause if status.phase is Phase.STARTING else CHECK_SECONDS)

    async def _end_outdated(self, service: Service, process: ProcessId) -> None:
        """End a service's own process alone: its drivers and tasks go on."""
        self._set(service.name, Phase.STOPPING, "what it is made of has changed", pid=process.pid)
        process.send(service.stop_signal)
        try:
            await asyncio.wait_for(self._exited(process), service.grace_seconds)
        except TimeoutError:
            process.send(signal.SIGKILL)
            await self._exited(process)

    async def _end_leftovers(self, service: Service) -> None:
        """End what a crashed start left in its session, but let an Airflow task that is at work finish."""
        facts = read_json(self.home.services / f"{service.name}.json")
        if facts is None or facts["boot"] != boot_id():
            return
        leader = ProcessId(facts["pid"], facts["start"])
        if await asyncio.to_thread(end_idle, leader):
            self._old_sessions.add(leader)

    async def _keep_house(self) -> None:
        """Bound the logs. The services write to files, not to pipes, so that they outlive this supervisor."""
        while True:
            for path in self.home.logs.glob("*.log"):
                await asyncio.to_thread(rotate, path, LOG_LIMIT)
            for leader in list(self._old_sessions):
                if not await asyncio.to_thread(end_idle, leader):
                    self._old_sessions.remove(leader)
            await asyncio.to_thread(forget_old_files, self.home.logs / "airflow", AIRFLOW_LOG_DAYS)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    async def stop(self) -> None:
        """Stop every living service, each after all that need it."""
        for keeper in self._keepers.values():
            keeper.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)
        alive = records.living(self.home)
        gone = {name: asyncio.Event() for name in alive}

        async def stop_one(name: str, process: ProcessId) -> None:
            service = self.plan.get(name) or Service(name=name, argv=())
            dependents = {s.name for s in self.plan.values() if name in plan.closure(self.plan, s.needs)}
            for other in dependents | set(service.stop_after):
                if other in gone and other != name:
                    await gone[other].wait()
            self._set(name, Phase.STOPPING)
            await self._stop_service(service, process)
            self._set(name, Phase.STOPPED, pid=None)
            gone[name].set()

        await asyncio.gather(*(stop_one(name, process) for name, process in alive.items()))

    async def _stop_service(self, service: Service, process: ProcessId) -> None:
        if service.before_stop:
            await asyncio.to_thread(service.before_stop)
        members = await asyncio.to_thread(family, [process])
        process.send(service.stop_signal)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited(process), service.grace_seconds)
        left = [m for m in members if m.alive]
        if left:
            log.info("%s: killing %d processes that did not leave", service.name, len(left))
            await asyncio.to_thread(end, left, grace_seconds=0.5)
        records.forget(self.home, service.name)


def rotate(path: Path, limit: int) -> None:
    """Keep the last `limit` bytes or so of a log that another process appends to, and one older part."""
    if path.stat().st_size > limit:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)


def forget_old_files(folder: Path, days: float) -> None:
    """Remove files that were last written so long ago: Airflow keeps one per task and never removes any."""
    oldest = time.time() - days * 86400
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink() and path.stat().st_mtime < oldest:
                path.unlink()


def _started_at(process: ProcessId) -> datetime:
    try:
        return datetime.fromtimestamp(psutil.Process(process.pid).create_time(), UTC)
    except psutil.NoSuchProcess:
        return datetime.now(UTC)


def end_idle(leader: ProcessId) -> int:
    """End the processes of a session whose leader is dead, but those that have a child in it and those children. Returns how many live on.

    A worker of Airflow's executor outlives the scheduler; with a child it runs a task, without one it would wait for ever.
    """
    members = sessions.members(leader)
    parents = {}
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            parents[member.pid] = psutil.Process(member.pid).ppid()
    idle = [m for m in members if m.pid not in parents.values() and parents.get(m.pid) not in parents]
    if idle:
        killed = end(idle, grace_seconds=5)
        log.info("ended %d processes that a crash left behind, %d of them with SIGKILL", len(idle), len(killed))
    return len(members) - len(idle)


def stop_orphans(home: Home) -> None:
    """Stop in order what runs without a supervisor."""

    async def stop() -> None:
        await Supervisor.of(home).stop()

    asyncio.run(stop())


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    home = Home(Path(arguments[0]))
    with home.locked("lock", wait=False) as mine:
        if not mine:
            log.info("another supervisor holds %s", home.run / "lock")
            return 0
        try:
            asyncio.run(Supervisor.of(home).run())
        except Exception:
            log.exception("the supervisor failed")
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
