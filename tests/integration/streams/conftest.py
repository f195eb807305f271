"""Streams of their own for each module of tests, on the stack that the whole run shares."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the helpers beside the tests

from streams_lab import Lab  # noqa: E402
from streams_registry import Switch  # noqa: E402

from k2.registry.runtime import Runtime  # noqa: E402


@pytest.fixture(scope="module")
def registry(base_stack: Runtime) -> Iterator[Switch]:
    switch = Switch(base_stack.schema_registry)
    yield switch
    switch.close()


@pytest.fixture(scope="module")
def lab(base_stack: Runtime, registry: Switch) -> Iterator[Lab]:
    name = f"lab{uuid.uuid4().hex[:6]}"
    lab = Lab(base_stack, base_stack.home / name, name, registry.url)
    yield lab
    lab.close()
