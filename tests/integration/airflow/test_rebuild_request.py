"""A checkpoint that somebody has deleted while data flows, made again through streams_control in a running Airflow."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from typing import Any

import pytest

from k2.checkpoints.reader import read_tail
from k2.processes import family
from k2.registry.runtime import Runtime
from k2.state import certificates, verdicts
from k2.state.database import connect

from ..test_commands import run as k2
from .conftest import Airflow, wait_for
from .test_live import UP, committing, driver_of
from .test_requests import asked, rows, states, waits

DAG = "streams_control"


def verdict(runtime: Runtime, stream: str) -> str:
    with connect(runtime, "reader") as connection:
        return verdicts.recorded(connection)[stream].verdict


def certificate(runtime: Runtime, stream: str, fence: int) -> dict[str, Any] | None:
    """The newest certificate of a stream, once it is of that fence."""
    with connect(runtime, "reader") as connection:
        found = certificates.latest(connection).get(stream)
    return found if found and found["fence"] >= fence else None


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stream", ["bronze_binance", "silver_binance"])
def test_a_deleted_checkpoint_is_made_again(platform_stack: Runtime, ui: Airflow, stream: str) -> None:
    """kill -9 and rm -rf: held, then approved, rebuilt, green, and Kafka, Bronze, Silver and DLQ have each record once."""
    fence = wait_for("driver", lambda: committing(platform_stack, stream), UP)
    path, query = platform_stack.checkpoint(stream), read_tail(platform_stack.checkpoint(stream)).query_id
    for member in family([driver_of(platform_stack, stream)]):
        with contextlib.suppress(ProcessLookupError):  # it ended with the one before
            os.kill(member.pid, signal.SIGKILL)
    shutil.rmtree(path)
    wait_for("it is held", lambda: verdict(platform_stack, stream) == "REWIND", 120)
    run = asked(ui, stream=stream, action="rebuild")
    question = waits(ui, run)
    assert "goes on" in question["body"] and "Lost: nothing" in question["body"]
    time.sleep(10)  # Airflow asks again when the answer comes before the asking worker has left, which takes it five seconds (airflow#71580)
    answer = f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    ui.http.patch(answer, json={"chosen_options": ["Approve"], "params_input": {}}).raise_for_status()
    assert ui.finished(DAG, run, 300) == "success", states(ui, run)
    after = wait_for("its commit", lambda: committing(platform_stack, stream, above=fence), UP)
    assert [row["outcome"] for row in rows(platform_stack, run)] == ["recorded", "reached"]
    assert (read_tail(path).query_id == query) == stream.startswith("silver")
    found = wait_for("a certificate", lambda: certificate(platform_stack, stream, after), 180)
    assert found["color"] == "green", found["checks"]
    assert "Nothing lost, nothing doubled" in k2(platform_stack.home, "reconcile")
