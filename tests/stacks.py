"""Embedded stacks of the test run's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from k2.registry.runtime import Runtime, load_runtime
from k2.stack.temporary import temporary_home

PROFILE = "demo"
PROXIED = "bronze_kraken"
"""The stream of the run's platform whose broker can be made silent for it alone."""


def stack_home(session: pytest.Session, name: str) -> AbstractContextManager[Path]:
    """A K2_HOME whose stack is stopped at the end. It is kept if it did not start or a test failed meanwhile."""
    failed = session.testsfailed
    return temporary_home(name, keep=lambda: session.testsfailed > failed)


@contextmanager
def current(runtime: Runtime) -> Iterator[Runtime]:
    """Meanwhile this is the platform that K2_RUNTIME names; afterwards the one before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K2_RUNTIME", str(runtime.run / "runtime.json"))
        load_runtime.cache_clear()
        yield runtime
    load_runtime.cache_clear()
