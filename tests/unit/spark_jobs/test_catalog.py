from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from catalog import fenced, jdbc_uri, scratch, settings
from k2.registry.platform import load_platform
from k2.registry.runtime import Runtime

from ...stacks import absent


def runtime(home: Path) -> Runtime:
    (home / "secrets").mkdir()
    (home / "secrets" / "postgres_writer").write_text("hush\n")
    return absent(home)


def options(uri: str) -> list[str]:
    return parse_qs(urlsplit(uri.removeprefix("jdbc:")).query)["options"]


def test_the_address_carries_stream_and_fence(tmp_path: Path) -> None:
    """PostgreSQL reads both as session settings; no password is in the address."""
    uri = jdbc_uri(runtime(tmp_path), fenced("bronze_x", 12))
    assert options(uri) == ["-c k2.stream=bronze_x -c k2.fence=12"]
    assert "hush" not in uri


def test_a_spare_carries_no_fence_and_is_no_writer(tmp_path: Path) -> None:
    """Its catalog lies in a schema of its own."""
    access = scratch("ab12")
    assert access.role == "spare"
    assert options(jdbc_uri(runtime(tmp_path), access)) == ["-c search_path=k2_spare"]


def test_the_catalog_is_the_fenced_one_with_the_registrys_defaults(tmp_path: Path) -> None:
    """Writer's role, schema V1, and each table default under its own key."""
    made = settings(runtime(tmp_path), load_platform(), fenced("bronze_x", 12))
    assert made["spark.sql.catalog.k2.jdbc.user"] == "k2_writer"
    assert made["spark.sql.catalog.k2.jdbc.password"] == "hush"
    assert made["spark.sql.catalog.k2.jdbc.schema-version"] == "V1"
    assert made["spark.sql.catalog.k2.table-default.write.distribution-mode"] == "none"
