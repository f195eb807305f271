"""Java 17: found, or installed where that is possible."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from k2.stack.errors import K2Error
from k2.stack.progress import Progress

VERSION = 17
PACKAGE = "openjdk-17-jre-headless"


def version_of(java: Path) -> int | None:
    """Its major version; None when it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    return int(found[1]) if found else None


def candidates() -> list[Path]:
    """Java programs in the order of preference: JAVA_HOME, PATH, the distribution's folder of JDKs."""
    found = [Path(os.environ["JAVA_HOME"]) / "bin" / "java"] if os.environ.get("JAVA_HOME") else []
    if on_path := shutil.which("java"):
        found.append(Path(on_path))
    found += sorted(Path("/usr/lib/jvm").glob(f"*{VERSION}*/bin/java"))
    return [java.resolve() for java in found if java.exists()]


def find_java(progress: Progress) -> Path:
    """The home folder of a Java 17. Raises K2Error with the command to type when there is none and none can be installed."""
    seen: dict[Path, int | None] = {}
    for java in candidates():
        seen[java] = version_of(java)
        if seen[java] == VERSION:
            return java.parent.parent
    if shutil.which("apt-get") and os.geteuid() == 0:
        _install(progress)
        for java in candidates():
            if version_of(java) == VERSION:
                return java.parent.parent
    if seen:
        java, version = next(iter(seen.items()))
        problem = f"Java {VERSION} is needed, but {java} is {f'Java {version}' if version else 'no Java that runs'}"
    else:
        problem = f"Java {VERSION} is needed, and no java was found"
    raise K2Error(f"{problem}: {_advice()}")


def class_archive(jars: Path, name: str) -> list[str]:
    """JVM options that start a server from an archive of its loaded classes, or write that archive when it ends for the first time.

    It halves the processor time of a start. A JVM that finds the archive unfit (another version, other jars) ignores it.
    """
    archive = jars / f"{name}.jsa"
    if archive.exists():
        return [f"-XX:SharedArchiveFile={archive}"]
    return [f"-XX:ArchiveClassesAtExit={archive}", "-Xlog:cds*=error"] if os.access(jars, os.W_OK) else []


def _advice() -> str:
    if shutil.which("apt-get"):
        return f"type  sudo apt-get install -y {PACKAGE}"
    return f"install a Java {VERSION} runtime and set JAVA_HOME to its folder"


def _install(progress: Progress) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "--no-install-recommends", PACKAGE]):
        progress.now(" ".join(command))
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise K2Error(f"Java {VERSION} is needed and could not be installed ({' '.join(last)}): {_advice()}")
    progress.say(f"installed {PACKAGE}")
