"""Ways for a driver to end. Each inflicts one on a living driver and returns its moment, Unix seconds."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from k2.chaos.memory import exhausted
from k2.processes import ProcessId, family, java_of
from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error
from k2.state.database import connect

LIMIT_SECONDS = 120.0

Death = Callable[[Runtime, ProcessId], float]


def kill_jvm(leader: ProcessId) -> float:
    """kill -9 of the Java process alone."""
    jvm = _jvm(leader)
    moment = time.time()
    jvm.send(signal.SIGKILL)
    return moment


def _jvm(leader: ProcessId) -> ProcessId:
    if (jvm := java_of([leader])) is None:
        raise K2Error(f"process {leader.pid} has no JVM to kill")
    return jvm


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


def _exhaust_memory(_: Runtime, leader: ProcessId) -> float:
    """The JVM gets no more memory, until it has died of that."""
    jvm = _jvm(leader)
    with exhausted(jvm):
        _until_dead(jvm, "the JVM gets no more memory")
        return time.time()


def _fail_the_query(runtime: Runtime, leader: ProcessId) -> float:
    """PostgreSQL refuses the catalog's next commit, until the driver has left."""
    with connect(runtime, "admin") as admin:
        admin.execute("REVOKE UPDATE ON iceberg_tables FROM k2_writer")
    try:
        _until_dead(leader, "PostgreSQL refuses its commits")
        return time.time()
    finally:
        with connect(runtime, "admin") as admin:
            admin.execute("GRANT UPDATE ON iceberg_tables TO k2_writer")


def _until_dead(process: ProcessId, why: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while process.alive:
        if time.monotonic() > deadline:
            raise K2Error(f"the driver did not end within {LIMIT_SECONDS:.0f} s, though {why}")
        time.sleep(0.01)


DEATHS: dict[str, Death] = {
    "kill -9 of Python alone": _kill_python,
    "kill -9 of Python and JVM": _kill_both,
    "out of memory": _exhaust_memory,
    "exception in the query": _fail_the_query,
}
