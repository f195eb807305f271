"""The list of jars, and how the cache is filled from a folder."""

from __future__ import annotations

import hashlib
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from k2.stack import jars
from k2.stack.errors import K2Error
from k2.stack.progress import Silent

SHA = "a" * 64


def test_the_committed_list_is_complete() -> None:
    """Each purpose has its jars, none twice, and the pins that only work together stand in it."""
    listed = jars.read_lock(jars.LOCK.read_text())
    counts = {purpose: sum(jar.purpose == purpose for jar in listed) for purpose in ("spark", "kafka", "registry")}
    assert counts == {"spark": 8, "kafka": 92, "registry": 1}
    assert len({(jar.purpose, jar.file_name) for jar in listed}) == len(listed)
    spark = {f"{jar.artifact}:{jar.version}" for jar in listed if jar.purpose == "spark"}
    assert {"iceberg-spark-runtime-4.1_2.13:1.12.0", "spark-token-provider-kafka-0-10_2.13:4.0.0", "spark-avro_2.13:4.1.1"} <= spark


def test_a_classifier_is_part_of_the_file_name() -> None:
    """Five parts name classifier and extension."""
    (jar,) = jars.read_lock(f"[registry]\ng:a:1:all:tar.gz {SHA}")
    assert (jar.file_name, jar.coordinates) == ("a-1-all.tar.gz", "g:a:1:all:tar.gz")


@pytest.mark.parametrize("line", ["g:a:1", f"g:a {SHA}", f"g:a:1 {SHA[:-1]}", f"g:a:1:all {SHA}"])
def test_a_line_that_cannot_be_understood_is_named(line: str) -> None:
    """The error gives the line's number and what is right."""
    with pytest.raises(K2Error, match=r"line 2: .*group:artifact:version"):
        jars.read_lock(f"[kafka]\n{line}")


def test_a_jar_outside_a_section_is_refused() -> None:
    """Without a purpose nobody would use the jar."""
    with pytest.raises(K2Error, match=r"\[purpose\]"):
        jars.read_lock(f"g:a:1 {SHA}")


def test_ivy_is_asked_for_exactly_the_listed_jars() -> None:
    """No dependency is followed, and two versions of one artifact go to two configurations."""
    listed = jars.read_lock(f"[spark]\ng:a:1 {SHA}\n[kafka]\ng:a:2 {SHA}\ng:b:1:all:tar.gz {SHA}")
    document = ET.fromstring(jars.ivy_file(listed))
    found = [(d.get("name"), d.get("rev"), d.get("conf"), d.get("transitive")) for d in document.iter("dependency")]
    assert found == [("a", "1", "spark->default", "false"), ("a", "2", "kafka->default", "false"), ("b", "1", "kafka->default", "false")]
    (artifact,) = document.iter("artifact")
    assert artifact.get("{http://ant.apache.org/ivy/maven}classifier") == "all"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a jar and an archive, a list that fits, and an empty cache."""
    source = tmp_path / "offline" / "jars"
    source.mkdir(parents=True)
    (source / "a-1.jar").write_bytes(b"jar")
    (tmp_path / "server.txt").write_text("server")
    with tarfile.open(source / "r-1-all.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "server.txt", arcname="lib/server.txt")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir()}
    lock = tmp_path / "jars.lock"
    lock.write_text(f"[kafka]\ng:a:1 {digests['a-1.jar']}\n[registry]\ng:r:1:all:tar.gz {digests['r-1-all.tar.gz']}\n")
    monkeypatch.setattr(jars, "LOCK", lock)
    monkeypatch.setenv("K2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("K2_OFFLINE", str(source.parent))
    return source


def test_an_offline_folder_fills_the_cache(offline: Path) -> None:
    """Jars lie flat by purpose, an archive is unpacked, and a second call needs the folder no more."""
    folder = jars.ensure_jars(Path("/no/java"), Silent())
    assert (folder / "kafka" / "a-1.jar").read_bytes() == b"jar"
    assert (folder / "registry" / "lib" / "server.txt").read_text() == "server"
    for path in offline.iterdir():
        path.unlink()
    assert jars.ensure_jars(Path("/no/java"), Silent()) == folder


def test_a_wrong_checksum_is_refused_and_the_file_removed(offline: Path) -> None:
    """The error names the coordinates; the next run with the right file succeeds."""
    (offline / "a-1.jar").write_bytes(b"tampered")
    with pytest.raises(K2Error, match=r"g:a:1 has sha256"):
        jars.ensure_jars(Path("/no/java"), Silent())
    assert not list(jars.cache_folder().rglob("a-1.jar"))
    (offline / "a-1.jar").write_bytes(b"jar")
    assert jars.ensure_jars(Path("/no/java"), Silent()).is_dir()


def test_a_missing_file_is_named(offline: Path) -> None:
    """What the offline folder lacks is said by name."""
    (offline / "a-1.jar").unlink()
    with pytest.raises(K2Error, match=r"a-1\.jar is missing"):
        jars.ensure_jars(Path("/no/java"), Silent())


def test_an_interrupted_run_keeps_what_was_complete(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is missing or broken is fetched again."""
    (offline / "r-1-all.tar.gz").rename(offline / "later")
    with pytest.raises(K2Error):
        jars.ensure_jars(Path("/no/java"), Silent())
    (offline / "later").rename(offline / "r-1-all.tar.gz")
    asked: list[str] = []
    copy = jars._copy
    monkeypatch.setattr(jars, "_copy", lambda wanted, *rest: (asked.extend(j.file_name for j in wanted), copy(wanted, *rest)))
    jars.ensure_jars(Path("/no/java"), Silent())
    assert asked == ["r-1-all.tar.gz"]
