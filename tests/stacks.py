"""Embedded stacks of the test run's own: each in a temporary folder, stopped at the end, kept only where a test failed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from k2.registry.runtime import Runtime, load_runtime
from k2.stack import control

PROFILE = "demo"


@contextmanager
def stack_home(session: pytest.Session, name: str) -> Iterator[Path]:
    """A K2_HOME. Whatever runs in it is stopped at the end; removed unless it did not start or a test failed meanwhile."""
    home = Path(tempfile.mkdtemp(prefix=f"k2-{name}-"))
    home.chmod(0o755)
    failed = session.testsfailed
    started = False
    try:
        yield home
        started = True
    finally:
        report = control.down(home)
        if not started or session.testsfailed > failed:
            print(f"\nlogs of the stack are kept in {home / 'logs'}", file=sys.stderr)
        else:
            shutil.rmtree(home)
    assert not report.left, f"processes left after down: {report.left}"


@contextmanager
def current(runtime: Runtime) -> Iterator[Runtime]:
    """Meanwhile this is the platform that K2_RUNTIME names; afterwards the one before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K2_RUNTIME", str(runtime.run / "runtime.json"))
        load_runtime.cache_clear()
        yield runtime
    load_runtime.cache_clear()
