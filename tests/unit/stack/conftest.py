"""A home that no platform runs in, and where a platform in it would be found."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.registry.runtime import Runtime
from k2.stack.home import Home

from ...stacks import absent


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def runtime(home: Home) -> Runtime:
    home.secret("postgres_airflow")
    return absent(home.path, profile="demo", tree=Path("/srv/k2"), exchange_simulator="http://127.0.0.1:8091", slack_api="http://127.0.0.1:8092")
