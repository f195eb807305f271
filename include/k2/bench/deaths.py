"""Ways for a driver to end. Each inflicts one on a living driver and returns its moment, Unix seconds."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from k2.processes import ProcessId, family
from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error
from k2.state.database import connect

LIMIT_SECONDS = 120.0

Death = Callable[[Runtime, ProcessId], float]


def kill_jvm(leader: ProcessId) -> float:
    """kill -9 of the Java process alone."""
    jvm = next(process for process in family([leader]) if process.name == "java")
    moment = time.time()
    jvm.send(signal.SIGKILL)
    return moment


def _kill_python(_: Runtime, leader: ProcessId) -> float:
    moment = time.time()
    leader.send(signal.SIGKILL)
    return moment


def _kill_both(_: Runtime, leader: ProcessId) -> float:
    members = family([leader])
    moment = time.time()
    for member in members:
        member.send(signal.SIGKILL)
    return moment


def _fail_the_query(runtime: Runtime, leader: ProcessId) -> float:
    """PostgreSQL refuses the catalog's next commit, until the driver has left."""
    with connect(runtime, "admin") as admin:
        admin.execute("REVOKE UPDATE ON iceberg_tables FROM k2_writer")
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while leader.alive:
            if time.monotonic() > deadline:
                raise K2Error(f"the driver did not end within {LIMIT_SECONDS:.0f} s though PostgreSQL refuses its commits")
            time.sleep(0.01)
        return time.time()
    finally:
        with connect(runtime, "admin") as admin:
            admin.execute("GRANT UPDATE ON iceberg_tables TO k2_writer")


DEATHS: dict[str, Death] = {
    "kill -9 of Python alone": _kill_python,
    "kill -9 of Python and JVM": _kill_both,
    "exception in the query": _fail_the_query,
}
