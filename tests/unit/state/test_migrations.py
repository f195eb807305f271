"""The migrations as files."""

from __future__ import annotations

import re

from k2.state.database import MIGRATIONS


def test_no_two_migrations_share_a_number() -> None:
    """They are applied in the order of their names, and one that is missing now may come later."""
    names = sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert len({name[:4] for name in names}) == len(names)
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names)


def test_no_migration_carries_a_password() -> None:
    """Roles and their passwords are made by the stack; a migration is a committed file."""
    assert not [path.name for path in MIGRATIONS.glob("*.sql") if re.search(r"password|create role|create user", path.read_text(), re.IGNORECASE)]
