"""Embedded stacks of the test run's own, and the runtime of one that does not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from k2.registry.files import REGISTRY
from k2.registry.runtime import Runtime, load_runtime
from k2.stack.temporary import temporary_home

PROFILE = "demo"
PROXIED = "bronze_kraken"
"""The stream of the run's platform whose broker can be made silent for it alone."""


def stack_home(session: pytest.Session, name: str) -> AbstractContextManager[Path]:
    """A K2_HOME whose stack is stopped at the end. It is kept if it did not start or a test failed meanwhile."""
    failed = session.testsfailed
    return temporary_home(name, keep=lambda: session.testsfailed > failed)


def absent(home: Path, **fields: Any) -> Runtime:
    """The runtime of a platform in `home` of which nothing answers. `fields` are set besides or in place."""
    nowhere, url = "127.0.0.1:1", "http://127.0.0.1:1"
    found = {"kafka": nowhere, "schema_registry": url, "postgres_host": "127.0.0.1", "postgres_port": 1, "airflow": url}
    places = {"home": home, "tree": home, "jars": home, "agent_socket": home / "socket" / "agent.sock", "checkpoints": home / "checkpoints"}
    return Runtime(**({"profile": "standard", "registry": REGISTRY, "warehouse": f"file://{home}/warehouse"} | found | places | fields))


@contextmanager
def current(runtime: Runtime) -> Iterator[Runtime]:
    """Meanwhile this is the platform that K2_RUNTIME names; afterwards the one before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K2_RUNTIME", str(runtime.run / "runtime.json"))
        load_runtime.cache_clear()
        yield runtime
    load_runtime.cache_clear()
