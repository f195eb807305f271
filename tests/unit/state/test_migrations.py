"""The migrations as files."""

from __future__ import annotations

import re

from k2.state.database import MIGRATIONS


def test_migrations_are_numbered_without_a_gap() -> None:
    """They are applied in the order of their names, so each has the next number and none has another's."""
    names = sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names)


def test_no_migration_carries_a_password() -> None:
    """Roles and their passwords are made by the stack; a migration is a committed file."""
    assert not [path.name for path in MIGRATIONS.glob("*.sql") if re.search(r"password|create role|create user", path.read_text(), re.IGNORECASE)]
