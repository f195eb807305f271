"""What a soak reads and says, without a platform."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from k2.chaos import sampling, slow, soak, soak_show
from k2.chaos.sampling import Sampler, Samples
from k2.registry.platform import load_platform
from k2.stack.status import PlatformStatus, ServiceStatus, SpareStatus, StreamStatus


def committed(checkpoint: Path, batch: int, planned: float, done: float) -> None:
    for part, at in (("offsets", planned), ("commits", done)):
        path = checkpoint / part / str(batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("v1")
        os.utime(path, (at, at))


@pytest.fixture
def runtime(tmp_path: Path) -> Any:
    platform = load_platform("demo")
    return SimpleNamespace(
        home=tmp_path, platform=platform, warehouse=(tmp_path / "warehouse").as_uri(), checkpoint=lambda name: tmp_path / platform.streams[name].checkpoint
    )


def test_a_sample_reads_everything_once(runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory by process, batches since the last sample, files and bytes of checkpoints and tables, lag, verdicts, fences."""
    stream = StreamStatus("bronze_kraken", "PROGRESSING", None, None, "", 7, None, 500.0, 1300)
    service = ServiceStatus("kafka", "healthy", 1, 1.0, 0, 300.0, 900, "")
    status = PlatformStatus(tmp_path, True, True, services=[service], streams=[stream], spares=[SpareStatus("1a", "warm", 400.0, 1500)])
    monkeypatch.setattr(sampling, "read_status", lambda _: status)

    @contextmanager
    def connect(*_: Any) -> Any:
        yield None

    fences = iter([3, 5])
    monkeypatch.setattr(sampling, "connect", connect)
    monkeypatch.setattr(sampling, "wanted_all", lambda _: {"bronze_kraken": SimpleNamespace(fence=next(fences))})
    data = tmp_path / "warehouse" / runtime.platform.catalog.namespace / "bronze_kraken_trades" / "data"
    data.mkdir(parents=True)
    (data / "f.parquet").write_bytes(bytes(2**20))
    sampler = Sampler(runtime)
    committed(runtime.checkpoint("bronze_kraken"), 1, 100, 101)
    sampler.sample()
    committed(runtime.checkpoint("bronze_kraken"), 2, 110, 112.5)
    sampler.sample()
    found = sampler.samples
    assert {name: [v for _, v in of] for name, of in found.memory_mb.items()} == {"kafka": [300] * 2, "bronze_kraken": [500] * 2, "a spare": [400] * 2}
    assert [seconds for _, seconds in found.commit_seconds["bronze_kraken"]] == [2.5], "what was there before is not of this run"
    assert [v for _, v in found.files["checkpoint bronze_kraken"]] == [4, 6]
    assert found.mib["bronze_kraken_trades data"][-1][1] == 1 and found.room_mb["kafka"] == 600
    assert found.verdicts == {"bronze_kraken PROGRESSING": 2} and found.lag_rows["bronze_kraken"][0][1] == 7
    assert soak.Outcome(found, None).restarts == 2


def test_the_report_names_a_leak_and_everything_else() -> None:
    """In plain words, with the slope's error, and in a file."""
    hours = [n / 60 for n in range(61)]
    samples = Samples(
        hours=1.0,
        memory_mb={"kafka": [(h, 300 + 50 * h) for h in hours], "feed_kraken": [(h, 40.0) for h in hours]},
        room_mb={"kafka": 500, "feed_kraken": 100},
        commit_seconds={"bronze_kraken": [(h, 0.5) for h in hours]},
        files={"checkpoint bronze_kraken": [(h, 200.0) for h in hours]},
        mib={"checkpoint bronze_kraken": [(h, 0.2) for h in hours]},
        lag_rows={"bronze_kraken": [(h, 12.0) for h in hours]},
        fences={"bronze_kraken": 1},
        first_fences={"bronze_kraken": 1},
    )
    samples.verdicts["bronze_kraken IDLE"] = 61
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115 - only the record is of interest
    outcome = soak.Outcome(samples, 61.0)
    for part in soak_show.report(outcome):
        console.print(part)
    said = console.export_text()
    (kafka,) = [line for line in said.splitlines() if "kafka" in line]
    assert "+50.0 ± 0.0" in kafka and "leaks" in kafka and "does not leak" not in kafka
    assert "does not leak" in next(line for line in said.splitlines() if "feed_kraken" in line)
    assert "The slow batch took 61 s." in said and "60 minutes, 0 restarts." in said and "bronze_kraken IDLE 61" in said
    written = json.loads(json.dumps(soak.as_dict(outcome)))
    assert written["slopes per hour"]["memory MiB"]["kafka"]["slope"] == pytest.approx(50)


def test_a_batch_is_slowed_until_it_takes_five_triggers(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends sooner is followed by the next one, which gets less of the processor."""
    folder = runtime.checkpoint("bronze_kraken")
    batch, runs = iter([1, 2]), []
    place = SimpleNamespace(runtime=runtime, in_batch=lambda *_: True, tail=lambda _: SimpleNamespace(last_offset_batch=next(batch)))

    def through(_: Any, __: str, number: int, runs_seconds: float) -> float:
        runs.append(runs_seconds)
        committed(folder, number, 100, 100 + 15 * number)
        return 0.0

    monkeypatch.setattr(slow, "_through", through)
    assert slow.slow_batch(place, "bronze_kraken", lambda _: None) == 30  # type: ignore[arg-type]
    assert runs[1] < runs[0]
