"""One embedded stack for the whole integration run, in a folder outside the tree."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2.registry.runtime import Runtime, load_runtime
from k2.stack import control

PROFILE = "demo"
BASE = ("postgres", "kafka", "schema_registry")


def pytest_configure() -> None:
    """A run that is asked to end stops its stack, as after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.integration)
    # Once the whole platform runs, its drivers take most of the machine: what does without it comes first.
    items.sort(key=lambda item: "platform_stack" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def stack_home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The K2_HOME of this run. Stopped at the end, and removed unless a test failed."""
    home = Path(tempfile.mkdtemp(prefix="k2-test-"))
    home.chmod(0o755)
    yield home
    report = control.down(home)
    if request.session.testsfailed:
        print(f"\nlogs of the stack are kept in {home / 'logs'}", file=sys.stderr)
    else:
        shutil.rmtree(home)
    assert not report.left, f"processes left after down: {report.left}"


@pytest.fixture(scope="session")
def base_stack(stack_home: Path) -> Iterator[Runtime]:
    """PostgreSQL with the suite's schema, Kafka with its topics, the schema registry with its schemas."""
    runtime = control.up(stack_home, profile=PROFILE, services=BASE)
    os.environ["K2_RUNTIME"] = str(runtime.run / "runtime.json")
    load_runtime.cache_clear()
    yield runtime
    del os.environ["K2_RUNTIME"]
    load_runtime.cache_clear()


@pytest.fixture(scope="session")
def platform_stack(base_stack: Runtime) -> Runtime:
    """The same stack with everything else: simulators, feeds, host agent, Airflow."""
    return control.up(base_stack.home, profile=PROFILE)


@pytest.fixture(scope="session")
def own_database(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """PostgreSQL alone, in a home of its own: for tests that raise fences and change what is wanted of real streams."""
    home = Path(tempfile.mkdtemp(prefix="k2-database-"))
    home.chmod(0o755)
    try:
        yield control.up(home, profile=PROFILE, services=("postgres",))
    finally:
        report = control.down(home)
        if not request.session.testsfailed:
            shutil.rmtree(home)
    assert not report.left, f"processes left after down: {report.left}"
