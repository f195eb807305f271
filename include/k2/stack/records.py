"""What the supervisor leaves on disk: its processes, so that a later one adopts them, and its state, for `status`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from k2.launchers.records import boot_id
from k2.processes import ProcessId, family
from k2.stack.drivers import recorded_drivers
from k2.stack.home import Home, read_json, write_atomically


def as_record(process: ProcessId) -> dict[str, int | str]:
    """The process for ever: a pid and a start time mean nothing after a reboot."""
    return {**process.as_dict(), "boot": boot_id()}


def from_record(facts: dict[str, Any] | None) -> ProcessId | None:
    """The recorded process, if it lives."""
    if not facts or facts["boot"] != boot_id():
        return None
    process = ProcessId(facts["pid"], facts["start"])
    return process if process.alive else None


def remember(home: Home, service: str, process: ProcessId, made_of: str) -> None:
    """Write down a service's process, and the fingerprint of what it was started with."""
    write_atomically(home.services / f"{service}.json", json.dumps({**as_record(process), "made_of": made_of}))


def recall(home: Home, service: str) -> ProcessId | None:
    """The process of an earlier start of this service, if it lives."""
    return from_record(read_json(home.services / f"{service}.json"))


def made_of(home: Home, service: str) -> str | None:
    """The fingerprint of what a recorded service was started with."""
    return (read_json(home.services / f"{service}.json") or {}).get("made_of")


def forget(home: Home, service: str) -> None:
    (home.services / f"{service}.json").unlink(missing_ok=True)


def recorded(home: Home) -> list[str]:
    """Names of all services with a record, living or not."""
    return sorted(path.stem for path in home.services.glob("*.json"))


def living(home: Home) -> dict[str, ProcessId]:
    """The recorded services that live."""
    return {name: process for name in recorded(home) if (process := recall(home, name))}


def supervisor_of(home: Home) -> ProcessId | None:
    """The supervisor that wrote the state file, if it lives."""
    return from_record((read_json(home.state_file) or {}).get("supervisor"))


def of_runtime(runtime_file: Path) -> list[ProcessId]:
    """Every process of this machine whose environment names this runtime file, found without any record."""
    marker = f"K2_RUNTIME={runtime_file}".encode()
    found = []
    for pid in psutil.pids():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if marker in variables and (process := ProcessId.of(pid)):
            found.append(process)
    return found


def everything(home: Home, *, but: Iterable[int] = ()) -> list[ProcessId]:
    """All that runs for this home: services, drivers, their descendants and sessions, and whatever names its runtime."""
    spared = set(but)
    roots = list(living(home).values())
    if runtime := home.runtime():
        roots += recorded_drivers(runtime).values()
    found = {p.pid: p for p in [*family(roots), *of_runtime(home.runtime_file)]}
    return [process for pid, process in found.items() if pid not in spared]
