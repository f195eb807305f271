"""One embedded stack for the whole integration run, in a folder outside the tree."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2.registry.runtime import Runtime
from k2.stack import control

from ..stacks import PROFILE, PROXIED, current, stack_home

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
def base_stack(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """PostgreSQL with the suite's schema, Kafka with its topics, the schema registry with its schemas."""
    with stack_home(request.session, "test") as home, current(control.up(home, profile=PROFILE, services=BASE, proxied=(PROXIED,))) as runtime:
        yield runtime


@pytest.fixture(scope="session")
def platform_stack(base_stack: Runtime) -> Runtime:
    """The same stack with everything else: simulators, feeds, host agent, Airflow."""
    return control.up(base_stack.home, profile=PROFILE)


@pytest.fixture(scope="session")
def own_database(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """PostgreSQL alone, in a home of its own: for tests that raise fences and change what is wanted of real streams."""
    with stack_home(request.session, "database") as home:
        yield control.up(home, profile=PROFILE, services=("postgres",))
