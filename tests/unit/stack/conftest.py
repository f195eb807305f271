"""A home that no platform runs in, and where a platform in it would be found."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.registry.runtime import Runtime
from k2.stack.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def runtime(home: Home) -> Runtime:
    home.secret("postgres_airflow")
    return Runtime(
        profile="demo",
        home=home.path,
        tree=Path("/srv/k2"),
        jars=home.path / "jars",
        kafka="127.0.0.1:9092",
        schema_registry="http://127.0.0.1:8085/apis/ccompat/v7",
        postgres_host="127.0.0.1",
        postgres_port=5432,
        airflow="http://127.0.0.1:8080",
        agent_socket=home.run / "agent.sock",
        warehouse="file:///w",
        checkpoints=Path("/c"),
        exchange_simulator="http://127.0.0.1:8091",
    )
