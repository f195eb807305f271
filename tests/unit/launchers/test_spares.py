"""The pool of spares in this process, with a small script in place of Spark."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from k2.launchers import spares
from k2.launchers.spares import Spares, read_spares
from k2.registry.runtime import Runtime

from ...stacks import absent


def test_a_spare_that_does_not_get_warm_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it waits for, the next one may not: the first is ended with its folder, and another one begins."""
    monkeypatch.setattr(spares, "WARM_UP_SECONDS", 0.5)
    monkeypatch.setattr(spares, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(spares, "FAILURE_SECONDS", 0.1)
    (tmp_path / "spark_jobs").mkdir()
    (tmp_path / "spark_jobs" / "spare.py").write_text("import time; time.sleep(60)")
    runtime = absent(tmp_path)

    async def scenario() -> None:
        pool = Spares(runtime)
        keeping = asyncio.create_task(pool.keep())
        try:
            first, process = await the_spare(runtime, besides="")
            second, _ = await the_spare(runtime, besides=first)
            assert not process.alive
            assert second > first
            assert not (runtime.spares / first).exists()
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            pool.close()

    asyncio.run(scenario())


async def the_spare(runtime: Runtime, besides: str) -> tuple[str, spares.ProcessId]:
    """Name and process of the first spare that is not called `besides`."""
    for _ in range(500):
        for name, (process, warm) in read_spares(runtime).items():
            assert not warm
            if name != besides:
                return name, process
        await asyncio.sleep(0.02)
    pytest.fail("no spare within 10 s")
