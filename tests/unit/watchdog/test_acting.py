"""What is done about decisions, with the agent told."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2.launchers.client import AgentUnavailable
from k2.registry.observed import Action, Decision, Verdict
from k2.registry.platform import load_platform
from k2.watchdog import acting

A, B = "bronze_binance", "bronze_kraken"


def test_act_does_only_what_is_to_be_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Verdicts without an action open no connection; an error in one stream leaves the others done."""

    class Agent:
        def __init__(self, runtime: Any) -> None:
            pass

        def __enter__(self) -> Agent:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def start(runtime: Any, agent: Any, stream: str, **_: Any) -> Any:
        if stream == A:
            raise AgentUnavailable("the agent is away")
        return SimpleNamespace(fence=2, how="cold", adopted=False)

    monkeypatch.setattr(acting, "AgentClient", Agent)
    monkeypatch.setattr(acting, "start", start)
    decisions = [Decision(A, Verdict.DEAD, Action.START, "-"), Decision(B, Verdict.DEAD, Action.START, "-"), Decision("c", Verdict.DEAD, Action.WAIT, "-")]
    failed, done = acting.act(SimpleNamespace(checkpoint=lambda stream: tmp_path / stream, platform=load_platform()), decisions)
    assert (failed.stream, failed.ok, failed.detail) == (A, False, "AgentUnavailable: the agent is away")
    assert (done.stream, done.ok, done.fence) == (B, True, 2)


def test_a_drain_keeps_no_other_stream_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when every place for drains is taken; what is being done is not begun again, and all of it is waited for."""
    drained, started = threading.Event(), threading.Event()

    def do(runtime: Any, agent: Any, decision: Decision) -> acting.Done:
        if decision.action is Action.STOP:
            assert drained.wait(20)
        else:
            started.set()
        return acting.Done(decision.stream, decision.action, True, "done")

    def look_again() -> list[Decision]:
        if started.is_set():
            drained.set()
        return [*stops, Decision(B, Verdict.DEAD, Action.START, "-")]

    platform = load_platform()
    streams = {f"s{n}": platform.streams[A].model_copy(update={"checkpoint": f"s{n}"}) for n in range(acting.AT_ONCE + 1)}
    stops = [Decision(name, Verdict.STOPPING, Action.STOP, "-") for name in streams]
    monkeypatch.setattr(acting, "AgentClient", lambda runtime: contextlib.nullcontext())
    monkeypatch.setattr(acting, "LOOK_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(acting, "_act", do)
    runtime = SimpleNamespace(platform=platform.model_copy(update={"streams": platform.streams | streams}))
    done = acting.act(runtime, stops, look_again)  # type: ignore[arg-type]
    assert started.is_set() and {d.stream for d in done} == {*streams, B}
    assert len(done) == len(stops) + 1, "nothing was done twice, though it was seen again"


def test_stops_come_first_and_readers_stop_before_what_they_read() -> None:
    """Several streams at once: Silver is stopped before Bronze, then Bronze is started before Silver."""
    due = [
        Decision("silver_kraken", Verdict.DEAD, Action.START, "-"),
        Decision("bronze_kraken", Verdict.STOPPING, Action.REPLACE, "-"),
        Decision("bronze_binance", Verdict.STOPPING, Action.STOP, "-"),
        Decision("silver_binance", Verdict.STOPPING, Action.STOP, "-"),
    ]
    ordered = acting.in_turn(due, load_platform())
    assert [d.stream for d in ordered] == ["silver_binance", "bronze_binance", "bronze_kraken", "silver_kraken"]
