"""What the machine must offer before anything is started: one sentence each when it does not."""

from __future__ import annotations

import platform as machine
import shutil
from collections.abc import Iterable
from pathlib import Path

from k2.registry.platform import Platform
from k2.stack.errors import K2Error

DISK_GB = 3


def check_machine() -> None:
    if machine.system() != "Linux" or machine.machine() != "x86_64":
        raise K2Error(f"this is {machine.system()} on {machine.machine()}: the embedded platform needs Linux on x86-64")


def check_disk(home: Path, needed_gb: float = DISK_GB) -> None:
    free = shutil.disk_usage(home).free / 1e9
    if free < needed_gb:
        raise K2Error(f"{home} has {free:.1f} GB free and {needed_gb:g} GB are needed: make room, or set K2_HOME to a folder on another disk")


def budget_mb(platform: Platform, services: Iterable[str]) -> int:
    """Memory that these services may use together, MiB; with the host agent come the streams' drivers and the spares."""
    names = set(services)
    drivers = sum(s.memory_mb for s in platform.streams.values()) + platform.spares.count * platform.spares.memory_mb
    return sum(platform.processes.get(name, 0) for name in names) + (drivers if "host_agent" in names else 0)


def check_memory(needed_mb: int, available_mb: int) -> None:
    if needed_mb > available_mb:
        raise K2Error(
            f"the platform's budgets add up to {needed_mb} MiB and {available_mb} MiB of memory are available: "
            "end other programs, give the machine or container more, or lower the budgets under processes and streams in include/config/platform.yaml"
        )


def available_memory_mb(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that this process could still get, MiB: the kernel's estimate, or less where a control group limits it."""
    lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) // 1024
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            available = min(available, *_left_v2(cgroups, path), available)
        elif "memory" in controllers.split(","):
            available = min(available, *_left_v1(cgroups / "memory", path), available)
    return available


def _groups(root: Path, path: str) -> list[Path]:
    """The group and all above it. Inside a container the path may be the host's: then only the root is there."""
    group = root / path.lstrip("/")
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(root) and folder.is_dir()]


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_file(path: Path, key: str) -> int:
    """Page cache that the kernel gives back when memory gets short."""
    try:
        stats = dict(line.split() for line in path.read_text().splitlines())
    except OSError:
        return 0
    return int(stats.get(key, 0))


def _left_v2(root: Path, path: str) -> list[int]:
    left = []
    for group in _groups(root, path):
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            left.append((limit - used + _inactive_file(group / "memory.stat", "inactive_file")) >> 20)
    return left


def _left_v1(root: Path, path: str) -> list[int]:
    left = []
    for group in _groups(root, path):
        limit, used = _number(group / "memory.limit_in_bytes"), _number(group / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            left.append((limit - used + _inactive_file(group / "memory.stat", "total_inactive_file")) >> 20)
    return left
