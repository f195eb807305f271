"""One watch as people read it in the task's log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from k2 import watchdog
from k2.airflow.watch import Watch, look_and_act, summary, table, woken_by
from k2.registry.observed import Action, Checkpoint, Decision, Driver, DriverState, Head, Observation, Reading, Verdict, Wanted
from k2.watchdog import Done, Look

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def look(stream: str, verdict: Verdict, action: Action, because: str, *, blind: bool = False) -> Look:
    def reading(value: object) -> Reading:
        return Reading(NOW, error="away") if blind else Reading(NOW, value)

    observation = Observation(
        stream=stream,
        at=NOW,
        wanted=reading(Wanted("running", 1, 3)),
        driver=reading(Driver(DriverState.EXITED, 3, pid=4711)),
        status=Reading(NOW, error="its driver is gone"),
        checkpoint=reading(Checkpoint("q", 8, 7, NOW, {})),
        head=reading(Head({}, 1234, 12.4)),
    )
    return Look(observation, Decision(stream, verdict, action, because))


def test_table_shows_seen_concluded_done() -> None:
    """A line per stream with its readings, and a line per action with its result."""
    dead = look("bronze_binance", Verdict.DEAD, Action.START, "ended by signal 9")
    blind = look("bronze_kraken", Verdict.UNKNOWN, Action.NONE, "no driver list", blind=True)
    started = Done("bronze_binance", Action.START, True, "started with fence 4 (spare)")
    watch = Watch([dead, blind], [started, Done("x", Action.STOP, False, "AgentUnavailable: away")])
    lines = table(watch).splitlines()
    assert " ".join(lines[1].split()) == "bronze_binance DEAD start exited fence 3 pid 4711 7 at 12:00:00 1,234 rows, 12 s ended by signal 9"
    assert " ".join(lines[2].split()) == "bronze_kraken UNKNOWN none ? ? ? no driver list"
    assert lines[5].split()[:3] == ["bronze_binance", "start", "done"]
    assert "FAILED" in lines[6] and watch.failures() == [watch.done[1]]


def test_what_is_urgent_is_done_before_the_full_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead stream does not wait for a look at everything, and the log shows it before and after."""
    dead = look("bronze_binance", Verdict.DEAD, Action.START, "ended by signal 9")
    after = look("bronze_binance", Verdict.STARTING, Action.NONE, "has run for 1 s")
    calls: list[str] = []

    def act(runtime: object, decisions: list[Decision], look_again: Callable[[], list[Decision]]) -> list[Done]:
        calls.append("act")
        return [Done(d.stream, d.action, True, "started") for d in decisions if d.action is Action.START]

    monkeypatch.setattr(watchdog, "urgent", lambda runtime: calls.append("urgent") or [dead])
    monkeypatch.setattr(watchdog, "look", lambda runtime: calls.append("look") or [after])
    monkeypatch.setattr(watchdog, "act", act)
    watch = look_and_act(None)  # type: ignore[arg-type]
    assert calls == ["urgent", "act", "look", "act"]
    assert (watch.looks, watch.done) == ([dead, after], [Done("bronze_binance", Action.START, True, "started")])
    assert summary(watch)["verdicts"] == {"bronze_binance": "STARTING"}


def test_while_a_stream_drains_others_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due for them is handed over each time; the log has each stream's verdict once."""
    stopping = look("silver_kraken", Verdict.STOPPING, Action.STOP, "it is wanted stopped")
    dead = look("bronze_binance", Verdict.DEAD, Action.START, "ended by signal 9")
    found = iter([[stopping], [stopping], [stopping, dead], []])
    handed: list[list[str]] = []

    def act(runtime: object, decisions: list[Decision], look_again: Callable[[], list[Decision]]) -> list[Done]:
        handed.append([d.stream for d in decisions])
        if len(handed) == 1:
            handed.extend([d.stream for d in look_again()] for _ in range(2))
        return []

    monkeypatch.setattr(watchdog, "urgent", lambda runtime: next(found))
    monkeypatch.setattr(watchdog, "look", lambda runtime: [])
    monkeypatch.setattr(watchdog, "act", act)
    monkeypatch.setattr(watchdog, "certify_due", lambda runtime: [])
    watch = look_and_act(None)  # type: ignore[arg-type]
    assert handed == [["silver_kraken"], ["silver_kraken"], ["silver_kraken", "bronze_binance"], []]
    assert watch.looks == [stopping, dead]


def test_certificates_are_written_by_a_run_that_had_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that could not be written is in the log."""
    monkeypatch.setattr(watchdog, "urgent", lambda runtime: [])
    monkeypatch.setattr(watchdog, "look", lambda runtime: [look("bronze_binance", Verdict.IDLE, Action.NONE, "all committed")])
    monkeypatch.setattr(watchdog, "act", lambda runtime, decisions, look_again: [])
    monkeypatch.setattr(watchdog, "certify_due", lambda runtime: [watchdog.Written("bronze_kraken", error="OSError: away")])
    watch = look_and_act(None)  # type: ignore[arg-type]
    assert table(watch).endswith("No certificate of bronze_kraken: OSError: away")


def test_table_of_a_quiet_moment() -> None:
    """Nothing done is said in words."""
    assert table(Watch([look("bronze_binance", Verdict.IDLE, Action.NONE, "all committed")], [])).endswith("Nothing had to be done.")


def test_summary_is_plain() -> None:
    """The XCom holds verdicts and actions as strings."""
    watch = Watch([look("bronze_binance", Verdict.DEAD, Action.START, "gone")], [Done("bronze_binance", Action.START, True, "fence 4")])
    assert summary(watch) == {
        "verdicts": {"bronze_binance": "DEAD"},
        "done": [{"stream": "bronze_binance", "action": "start", "ok": True, "detail": "fence 4"}],
    }


def event(extra: dict[str, object]) -> SimpleNamespace:
    return SimpleNamespace(extra=extra, timestamp=datetime.now(UTC) - timedelta(seconds=2))


def test_woken_by_the_clock() -> None:
    """A scheduled run has no event."""
    assert woken_by({"triggering_asset_events": {}}) == "Woken by the clock."


def test_woken_by_the_poll_and_by_a_person() -> None:
    """An event of the trigger names its streams and reasons, one of streams_control the person."""
    polled = event({"from_trigger": True, "payload": {"streams": ["bronze_kraken"], "because": {"bronze_kraken": "gone"}}})
    asked = event({"who": "admin", "action": "stop", "streams": ["silver_kraken"]})
    said = woken_by({"triggering_asset_events": {"k2_streams": [polled, asked]}})
    assert "the poll, 2.0 s ago, about bronze_kraken" in said and "gone" in said
    assert "admin, 2.0 s ago, about silver_kraken" in said


def test_woken_by_a_failing_poll() -> None:
    """An event without streams asks for a look at all of them."""
    assert "about all streams" in woken_by({"triggering_asset_events": {"a": [event({"from_trigger": True, "payload": {"streams": [], "because": {}}})]}})
