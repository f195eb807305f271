"""The host agent's memory: one record.json per driver, so that an agent that was killed adopts what runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from k2.processes import ProcessId
from k2.registry.observed import Failure
from k2.registry.runtime import Runtime

RECORD = "record.json"


@dataclass
class Record:
    """What is known of one driver. `pid` and `start` are None from before it is started until they are known."""

    stream: str
    fence: int
    how: str
    boot: str
    """The kernel's boot id: a pid means nothing after a reboot."""
    started_at: datetime
    pid: int | None = None
    start: int | None = None
    """Start time of the process in clock ticks, as in ProcessId."""
    spare: str | None = None
    """The spare that became this driver; None of a cold start."""
    asked: bool = False
    """Someone told the agent to stop or kill it."""
    ended_at: datetime | None = None
    exit_code: int | None = None
    exit_message: str = ""
    failure: Failure | None = None

    @property
    def process(self) -> ProcessId | None:
        return ProcessId(self.pid, self.start) if self.pid is not None and self.start is not None else None

    @process.setter
    def process(self, process: ProcessId | None) -> None:
        self.pid, self.start = (process.pid, process.start) if process else (None, None)

    @property
    def tag(self) -> str:
        return f"{self.stream}#{self.fence}"


_RECORD = TypeAdapter(Record)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write(runtime: Runtime, record: Record) -> None:
    """Replace the record on disk; a reader sees the old one or the whole new one."""
    folder = runtime.driver_dir(record.stream, record.fence)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = folder / f".{RECORD}"
    part.write_bytes(_RECORD.dump_json(record))
    part.replace(folder / RECORD)


def read_all(runtime: Runtime) -> tuple[list[Record], list[str]]:
    """Every record, by stream and fence, and one sentence per folder whose record cannot be read."""
    records, unreadable = [], []
    for folder in sorted((runtime.run / "drivers").glob("*#*")):
        try:
            records.append(_RECORD.validate_json((folder / RECORD).read_bytes()))
        except FileNotFoundError:
            continue
        except (ValidationError, OSError) as error:
            unreadable.append(f"{folder / RECORD}: {error}")
    return sorted(records, key=lambda r: (r.stream, r.fence)), unreadable


def alive(record: Record) -> bool:
    """Whether the driver's own process runs, by pid and start time."""
    return record.process is not None and record.boot == boot_id() and record.process.alive


def living_driver(runtime: Runtime, stream: str) -> tuple[int, ProcessId] | None:
    """Fence and process of the newest driver of a stream that lives; None when none does."""
    found = [(r.fence, r.process) for r in read_all(runtime)[0] if r.stream == stream and r.process is not None and alive(r)]
    return max(found, key=lambda pair: pair[0], default=None)
