"""Memory, disk, Java: read right, and refused in one sentence with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.registry.platform import load_platform
from k2.stack import java, preflight
from k2.stack.errors import K2Error
from k2.stack.progress import Silent

MB = 1024 * 1024


def fake_proc(tmp_path: Path, cgroup: str, available_mb: int = 8000) -> Path:
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {available_mb * 1024} kB\n")
    (proc / "self" / "cgroup").write_text(cgroup)
    return proc


def group(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")
    return folder


def test_without_a_limit_the_kernels_estimate_counts(tmp_path: Path) -> None:
    """`max` is no limit."""
    root = tmp_path / "cgroup"
    group(root / "a", memory__max="max", memory__current=5 * MB)
    assert preflight.available_memory_mb(fake_proc(tmp_path, "0::/a\n"), root) == 8000


def test_a_limit_of_a_parent_group_counts(tmp_path: Path) -> None:
    """The tightest group on the way up wins, page cache that can be dropped is not used memory."""
    root = tmp_path / "cgroup"
    group(root / "a", memory__max=3000 * MB, memory__current=2000 * MB, memory__stat=f"anon 1\ninactive_file {500 * MB}")
    group(root / "a" / "b", memory__max="max", memory__current=0)
    assert preflight.available_memory_mb(fake_proc(tmp_path, "0::/a/b\n"), root) == 1500


def test_a_limit_of_the_older_kind_counts(tmp_path: Path) -> None:
    """Control groups of version 1, with the path of the host that does not exist inside a container."""
    root = tmp_path / "cgroup"
    group(root / "memory", memory__limit_in_bytes=1000 * MB, memory__usage_in_bytes=900 * MB, memory__stat="total_inactive_file 0")
    assert preflight.available_memory_mb(fake_proc(tmp_path, "7:cpu:/x\n5:memory:/docker/1\n"), root) == 100


def test_too_little_memory_is_one_sentence_with_figures() -> None:
    """What is needed, what is there, what to do."""
    with pytest.raises(K2Error, match=r"12000 MiB and 4000 MiB .*: end other programs"):
        preflight.check_memory(12000, 4000)
    preflight.check_memory(4000, 4000)


def test_drivers_and_spares_count_with_the_agent_that_starts_them() -> None:
    """Only the host agent brings the streams' memory in."""
    platform = load_platform()
    streams = sum(s.memory_mb for s in platform.streams.values())
    assert preflight.budget_mb(platform, ["kafka"]) == platform.processes["kafka"]
    assert preflight.budget_mb(platform, ["host_agent"]) == platform.processes["host_agent"] + streams + platform.spares.count * platform.spares.memory_mb


def test_too_little_disk_names_the_setting(tmp_path: Path) -> None:
    """K2_HOME may point elsewhere."""
    with pytest.raises(K2Error, match="set K2_HOME"):
        preflight.check_disk(tmp_path, needed_gb=10**9)


def fake_java(folder: Path, version: str) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("text", "major"), [("17.0.15", 17), ("1.8.0_402", 8), ("21", 21)])
def test_the_version_of_a_java_is_read(tmp_path: Path, text: str, major: int) -> None:
    """Old and new ways of counting."""
    assert java.version_of(fake_java(tmp_path, text)) == major


def test_a_wrong_java_is_named_with_the_command_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user who may not install, the message ends with what an administrator types."""
    wrong = fake_java(tmp_path, "11.0.2")
    monkeypatch.setattr(java, "candidates", lambda: [wrong])
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(K2Error, match=r"Java 17 is needed, but .* is Java 11: type  sudo apt-get install -y openjdk-17-jre-headless"):
        java.find_java(Silent())


def test_java_home_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Java 17 in JAVA_HOME is used, whatever `java` is."""
    fake_java(tmp_path / "jdk", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert java.find_java(Silent()) == tmp_path / "jdk"
