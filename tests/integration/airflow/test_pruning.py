"""checkpoints_prune in a running Airflow, on checkpoints that streams are writing at that moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from k2.checkpoints.entries import entries
from k2.checkpoints.leftovers import put_back
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.reader import read_tail
from k2.registry.runtime import Runtime
from k2.state.database import connect

from ..test_commands import run as k2
from .conftest import Airflow, wait_for
from .test_live import UP, Messages, committing, driver_of

DAG = "checkpoints_prune"
STREAM = "bronze_kraken"
LEFT = "offsets/.7.0c1b7cf6-6e0f-4f6c-9a3e-3d5f2c1b0a99.tmp"
NIGHTS = 3


def litter(checkpoint: Path, name: str = LEFT) -> None:
    """What a crash left in it two days ago."""
    (checkpoint / name).write_text("half a plan")
    old = time.time() - 2 * 86_400
    os.utime(checkpoint / name, (old, old))


@pytest.fixture
def littered(platform_stack: Runtime) -> Iterator[Path]:
    """A checkpoint that its stream writes to, with a leftover in it; beside it one that nobody claims, and is damaged."""
    wait_for(f"commit of {STREAM}", lambda: committing(platform_stack, STREAM), UP)
    path = platform_stack.checkpoint(STREAM)
    litter(path)
    lost = platform_stack.checkpoints / "of-nobody"
    (lost / "offsets").mkdir(parents=True)
    (lost / "offsets" / "0").write_text("v1\n{}\n-")
    yield path
    for file in sorted(lost.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    lost.rmdir()


def pruned(ui: Airflow, **form: Any) -> dict[str, Any]:
    """The report of a run by hand."""
    run = ui.trigger(DAG, **form).raise_for_status().json()["dag_run_id"]
    assert ui.finished(DAG, run, 240) == "success"
    return ui.result(DAG, run, "report")


def incident(runtime: Runtime, folder: str) -> str | None:
    """The severity of what is open about a checkpoint."""
    with connect(runtime, "reader") as connection:
        row = connection.execute("SELECT severity FROM k2.incidents WHERE starts_with(key, %s) AND resolved_at IS NULL", (f"checkpoint:{folder}",)).fetchone()
    return row["severity"] if row else None


def restarted(runtime: Runtime, streams: Sequence[str]) -> None:
    """kill -9 to their drivers: each stream commits again, as the query that it was, and its whole history is proven."""
    fences = {stream: wait_for(f"driver of {stream}", lambda stream=stream: committing(runtime, stream), UP) for stream in streams}
    queries = {stream: read_tail(runtime.checkpoint(stream)).query_id for stream in streams}
    for stream in streams:
        driver_of(runtime, stream).send(signal.SIGKILL)
    for stream, fence in fences.items():
        wait_for(f"commit of {stream} after its restart", lambda stream=stream, fence=fence: committing(runtime, stream, above=fence), UP)
        assert read_tail(runtime.checkpoint(stream)).query_id == queries[stream]
        assert f"{stream} is green" in k2(runtime.home, "certify", stream)


def test_a_dry_run_changes_nothing_and_a_real_one_can_be_undone(platform_stack: Runtime, ui: Airflow, littered: Path, slack: Messages) -> None:
    """By hand it plans; told to, it takes the leftover and nothing else, and the stream goes on, also over a restart."""
    planned = pruned(ui)
    assert planned["dry_run"] and (littered / LEFT).exists() and entries(quarantine_of(platform_stack.checkpoints)) == []
    assert {d["folder"]: d["files"] for d in planned["done"]}[littered.name] == 1
    assert planned["health"]["of-nobody"] == "damaged" and planned["unclaimed"] == ["of-nobody"]
    assert incident(platform_stack, "of-nobody") == "ticket" and incident(platform_stack, littered.name) is None
    wait_for("the ticket", lambda: any("Checkpoint of-nobody: damaged" in m["text"] for m in slack()), 120)

    done = pruned(ui, dry_run=False)
    assert (done["taken"], done["quarantine"], done["health"][littered.name]) == (1, 1, "healthy")
    (entry,) = entries(quarantine_of(platform_stack.checkpoints))
    assert not (littered / LEFT).exists() and (entry.checkpoint / LEFT).read_text() == "half a plan"

    assert put_back(entry, platform_stack.checkpoints) == 1 and (littered / LEFT).read_text() == "half a plan"
    (littered / LEFT).unlink()
    before = read_tail(littered)
    wait_for("the next commit", lambda: (read_tail(littered).last_commit_batch or 0) > (before.last_commit_batch or 0), 60)
    restarted(platform_stack, [STREAM])


def test_what_is_gone_is_resolved(platform_stack: Runtime, ui: Airflow) -> None:
    """The next run finds the damaged folder no more."""
    done = pruned(ui)
    assert set(done["health"].values()) == {"healthy"} and incident(platform_stack, "of-nobody") is None


@pytest.mark.full
@pytest.mark.timeout(900)
def test_every_stream_is_restarted_after_each_night(platform_stack: Runtime, ui: Airflow) -> None:
    """Night after night something is taken from every checkpoint, and every driver is killed afterwards."""
    streams = list(platform_stack.platform.streams)
    for night in range(NIGHTS):
        for stream in streams:
            wait_for(f"commit of {stream}", lambda stream=stream: committing(platform_stack, stream), UP)
            litter(platform_stack.checkpoint(stream), f"commits/.{night}.0c1b7cf6-6e0f-4f6c-9a3e-3d5f2c1b0a99.tmp")
        assert pruned(ui, dry_run=False)["taken"] == len(streams)
        restarted(platform_stack, streams)


@pytest.mark.full
def test_too_many_to_be_normal_wait_for_a_person(platform_stack: Runtime, ui: Airflow) -> None:
    """Most of a checkpoint left over: the run asks. After a no they stay, after a yes they are in the quarantine."""
    wait_for(f"commit of {STREAM}", lambda: committing(platform_stack, STREAM), UP)
    path = platform_stack.checkpoint(STREAM)
    for number in range(1200):
        litter(path, f"offsets/.{number}.0c1b7cf6-6e0f-4f6c-9a3e-{number:012d}.tmp")
    for answer, left in (("Reject", 1200), ("Approve", 0)):
        run = ui.trigger(DAG, dry_run=False).raise_for_status().json()["dag_run_id"]
        task = f"dags/{DAG}/dagRuns/{run}/taskInstances/ask"
        wait_for("a question", lambda task=task: ui.get(task)["state"] == "awaiting_input", 90)
        assert f"{path.name}: 1,200 of its" in ui.get(f"{task}/-1/hitlDetails")["body"]
        time.sleep(10)  # Airflow asks again when the answer comes before the asking worker has left, which takes it five seconds (airflow#71580)
        ui.http.patch(f"/api/v2/{task}/-1/hitlDetails", json={"chosen_options": [answer], "params_input": {}}).raise_for_status()
        assert ui.finished(DAG, run, 240) == "success"
        assert sum(1 for _ in path.glob("offsets/.*.0c1b7cf6-6e0f-4f6c-9a3e-*.tmp")) == left
        done = ui.result(DAG, run, "report")
        assert done["taken"] == 1200 - left and ("nobody has agreed" in str(done["done"])) == bool(left)
