"""The jars of `include/config/jars.lock` in the user's cache: fetched once, one by one, and checked.

Ivy, which the pyspark wheel carries, does the fetching. It resolves nothing: every jar stands in the list with its
checksum, and each purpose (spark, kafka, registry) gets a flat folder, so that a class path can end in `/*`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from k2.registry.files import CONFIG_DIR
from k2.stack.errors import K2Error
from k2.stack.progress import Progress

LOCK = CONFIG_DIR / "jars.lock"
SETTINGS = """<ivysettings><settings defaultResolver="central"/>
<resolvers><ibiblio name="central" m2compatible="true" usepoms="false"/></resolvers></ivysettings>"""


@dataclass(frozen=True)
class Jar:
    purpose: str
    group: str
    artifact: str
    version: str
    sha256: str
    classifier: str = ""
    extension: str = "jar"

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}{'-' + self.classifier if self.classifier else ''}.{self.extension}"

    @property
    def coordinates(self) -> str:
        return ":".join([self.group, self.artifact, self.version, *([self.classifier, self.extension] if self.classifier else [])])


def read_lock(text: str) -> list[Jar]:
    """The jars of a lock file. Raises K2Error naming the line that cannot be understood."""
    jars, purpose = [], ""
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.split("#")[0].strip()
        if section := re.fullmatch(r"\[(\w+)\]", line):
            purpose = section[1]
        elif line:
            words = line.split()
            parts = words[0].split(":")
            if not purpose or len(words) != 2 or len(parts) not in (3, 5) or not re.fullmatch(r"[0-9a-f]{64}", words[1]):
                raise K2Error(f"jars.lock line {number}: {line!r} is not 'group:artifact:version[:classifier:extension] sha256' under a [purpose]: correct it")
            jars.append(Jar(purpose, parts[0], parts[1], parts[2], words[1], *parts[3:]))
    return jars


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """`K2_CACHE`, by default k2 in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("K2_CACHE") or Path(base) / "k2").absolute()


def ensure_jars(java_home: Path, progress: Progress) -> Path:
    """The folder with one sub-folder of jars per purpose; filled first if need be. Raises K2Error."""
    lock = LOCK.read_text()
    final = cache_folder() / f"jars-{hashlib.sha256(lock.encode()).hexdigest()[:16]}"
    if final.is_dir():
        return final
    partial = final.with_suffix(".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise K2Error(f"{final.parent} cannot be written ({error.strerror}): set K2_CACHE to a folder of your own, or to one that is complete") from None
    with (cache_folder() / "jars.lock").open("w") as turn:
        progress.now("waiting for another k2 that fetches the jars")
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not final.is_dir():
            jars = read_lock(lock)
            missing = [jar for jar in jars if not _is_right(jar, partial)]
            if offline := os.environ.get("K2_OFFLINE"):
                _copy(missing, Path(offline) / "jars", partial)
            else:
                _fetch(missing, partial, java_home, progress)
            _check(jars, partial)
            _unpack(jars, partial)
            partial.rename(final)
            progress.say(f"{len(jars)} jars fetched and checked")
    return final


def _is_right(jar: Jar, folder: Path) -> bool:
    """Whether an earlier, interrupted run left this jar complete."""
    path = folder / jar.purpose / jar.file_name
    if path.is_file() and sha256_of(path) != jar.sha256:
        path.unlink()
    return path.is_file()


def _check(jars: Iterable[Jar], folder: Path) -> None:
    for jar in jars:
        path = folder / jar.purpose / jar.file_name
        if not path.is_file():
            raise K2Error(f"{jar.coordinates} was not found: check the network, K2_MAVEN_SETTINGS or K2_OFFLINE, and run the same command again")
        if (found := sha256_of(path)) != jar.sha256:
            path.unlink()
            shutil.rmtree(_ivy_cache() / jar.group / jar.artifact, ignore_errors=True)
            raise K2Error(
                f"{jar.coordinates} has sha256 {found[:12]}… where jars.lock says {jar.sha256[:12]}…: "
                "the file was removed; find out why the repository serves another one, then run again"
            )


def _copy(jars: Iterable[Jar], source: Path, folder: Path) -> None:
    for jar in jars:
        if not (source / jar.file_name).is_file():
            raise K2Error(f"{source / jar.file_name} is missing: K2_OFFLINE/jars must hold every file of include/config/jars.lock")
        (folder / jar.purpose).mkdir(exist_ok=True)
        shutil.copyfile(source / jar.file_name, folder / jar.purpose / jar.file_name)


def ivy_file(jars: Iterable[Jar]) -> str:
    """An ivy.xml that asks for exactly these jars, one configuration per purpose."""
    jars = list(jars)
    configurations = "".join(f"<conf name={quoteattr(p)}/>" for p in dict.fromkeys(j.purpose for j in jars))
    dependencies = ""
    for jar in jars:
        name, extension = quoteattr(jar.artifact), quoteattr(jar.extension)
        artifact = f"<artifact name={name} type={extension} ext={extension} m:classifier={quoteattr(jar.classifier)}/>" if jar.classifier else ""
        which = f'org={quoteattr(jar.group)} name={name} rev={quoteattr(jar.version)} conf="{jar.purpose}->default" transitive="false"'
        dependencies += f"<dependency {which}>{artifact}</dependency>\n"
    return (
        '<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven"><info organisation="k2" module="jars"/>'
        f'<configurations>{configurations}</configurations><dependencies>\n{dependencies}<conflict manager="all"/></dependencies></ivy-module>'
    )


def _ivy_cache() -> Path:
    return cache_folder() / "ivy"


def _ivy_jar() -> Path:
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise K2Error("pyspark is not installed in this environment: start with the ./k2 script, which makes it")
    return next((Path(spec.origin).parent / "jars").glob("ivy-*.jar"))


def _fetch(jars: list[Jar], folder: Path, java_home: Path, progress: Progress) -> None:
    """Into `folder`; what Ivy has fetched before an interruption is in its cache, so a second run goes on."""
    if not jars:
        return
    work = _ivy_cache()
    work.mkdir(parents=True, exist_ok=True)
    (work / "ivy.xml").write_text(ivy_file(jars))
    settings = os.environ.get("K2_MAVEN_SETTINGS")
    if settings and not Path(settings).is_file():
        raise K2Error(f"K2_MAVEN_SETTINGS is {settings!r}, which is no file: name an Ivy settings file, or unset it")
    (work / "settings.xml").write_text(SETTINGS)
    command = [java_home / "bin" / "java", "-jar", _ivy_jar(), "-settings", settings or work / "settings.xml", "-cache", work, "-ivy", work / "ivy.xml"]
    command += ["-retrieve", f"{folder}/[conf]/[artifact]-[revision](-[classifier]).[ext]"]
    complaints: list[str] = []
    fetched = 0
    with (work / "ivy.log").open("w") as log, subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ivy:
        assert ivy.stdout is not None
        try:
            for line in ivy.stdout:
                log.write(line)
                if "[SUCCESSFUL" in line:
                    fetched += 1
                elif found := re.search(r"::\s+([^:\s]+#[^:]+?):? (?:not found|\[)", line):
                    complaints.append(found[1])
                progress.now(f"fetching jars: {fetched} of {len(jars)}")
        except BaseException:  # an interruption must not leave it writing where the next run begins
            ivy.kill()
            raise
    if ivy.returncode:
        which = ", ".join(dict.fromkeys(complaints)) or f"see {work / 'ivy.log'}"
        raise K2Error(f"the repository did not give all jars ({which}): check the network or K2_MAVEN_SETTINGS and run again, it goes on where it stopped")


def _unpack(jars: Iterable[Jar], folder: Path) -> None:
    for jar in jars:
        archive = folder / jar.purpose / jar.file_name
        if jar.extension == "tar.gz":
            subprocess.run(["tar", "-xzf", archive, "-C", archive.parent, "--no-same-owner"], check=True)
            archive.unlink()
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(_ivy_cache())
