"""The dead man's switch against the stand-in for Slack, and a real database."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from k2.launchers.deadman import KEY, TITLE, DeadManSwitch
from k2.registry.runtime import Runtime
from k2.stack.ports import choose
from k2.state import database, watchers
from k2.supervision.deadman import Step

from ...stacks import absent


@pytest.fixture(scope="module")
def slack() -> Iterator[str]:
    """The root of a Slack stand-in, a process of its own."""
    port = choose({"slack_simulator": 18099})["slack_simulator"]
    process = subprocess.Popen([sys.executable, "-m", "k2.alerts.slack_simulator", "--port", str(port)])
    root = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"{root}/messages").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield root
    finally:
        process.kill()
        process.wait()


class Desk:
    """One switch with a clock of its own, and what people read."""

    def __init__(self, runtime: Runtime, slack: str) -> None:
        self.runtime, self.slack = runtime, slack
        self.seconds = 0.0
        self.known = len(self.messages())
        self.switch = DeadManSwitch(runtime, lambda: self.seconds)

    def after(self, seconds: float) -> Step:
        """One turn of the switch, later."""
        self.seconds += seconds
        return self.switch.turn()

    def messages(self) -> list[dict[str, Any]]:
        return list(httpx.get(f"{self.slack}/messages").json())

    def new(self) -> list[dict[str, Any]]:
        """Messages and replies since the last time."""
        found = self.messages()
        fresh, self.known = found[self.known :], len(found)
        return fresh

    def fault(self, **fields: Any) -> None:
        httpx.post(f"{self.slack}/fault", json=fields).raise_for_status()

    def airflow(self, phase: str) -> None:
        names = ("airflow_scheduler", "airflow_triggerer")
        self.runtime.run.mkdir(exist_ok=True)
        (self.runtime.run / "wanted.json").write_text(json.dumps({"services": list(names)}))
        (self.runtime.run / "stack.json").write_text(json.dumps({"services": {name: {"phase": phase} for name in names}}))

    def look(self, watcher: str = "poll") -> None:
        with database.connect(self.runtime, "control") as connection:
            watchers.looked(connection, watcher)

    def incidents(self) -> list[dict[str, Any]]:
        with database.connect(self.runtime, "reader") as connection:
            return connection.execute("SELECT * FROM k2.incidents WHERE key = %s ORDER BY id", (KEY,)).fetchall()


def settings(tmp_path: Path, slack: str, **database: Any) -> Runtime:
    (tmp_path / "secrets").mkdir(exist_ok=True)
    (tmp_path / "secrets" / "postgres_control").write_text("x")
    return absent(tmp_path, slack_api=slack, **database)


@pytest.fixture
def blind(tmp_path: Path, slack: str) -> Desk:
    """Without a database."""
    desk = Desk(settings(tmp_path, slack), slack)
    desk.airflow("healthy")
    return desk


@pytest.fixture
def desk(own_database: Runtime, tmp_path: Path, slack: str) -> Desk:
    with database.connect(own_database, "admin") as admin:
        admin.execute("TRUNCATE k2.incidents, k2.watchers")
    runtime = settings(tmp_path, slack, postgres_host=own_database.postgres_host, postgres_port=own_database.postgres_port)
    (tmp_path / "secrets" / "postgres_control").unlink()
    (tmp_path / "secrets").rmdir()
    (tmp_path / "secrets").symlink_to(own_database.secrets)
    made = Desk(runtime, slack)
    made.airflow("healthy")
    return made


def test_without_a_database_people_are_told_straight(blind: Desk) -> None:
    """Once, with what cannot be known, in the channel of pages; a reminder after half an hour; Slack away is tried again."""
    assert blind.after(299) is Step.NONE and blind.new() == []
    blind.fault(status=200, error="fatal_error", times=1)
    assert blind.after(2) is Step.NONE and blind.new() == []
    assert blind.after(10) is Step.PAGE
    (message,) = blind.new()
    assert message["channel"] == "#data-platform-oncall" and TITLE in message["text"]
    assert "PostgreSQL cannot be asked" in json.dumps(message["blocks"]) and "./k2 status" in json.dumps(message["blocks"])
    assert [blind.after(600), blind.after(600)] == [Step.NONE, Step.NONE] and blind.new() == []
    assert blind.after(601) is Step.REMIND
    (reply,) = blind.new()
    assert reply["thread_ts"] == message["ts"] and "Still open" in reply["text"]


@pytest.mark.parametrize("phase", ["stopping", "stopped"])
def test_a_wanted_stop_is_no_silence(blind: Desk, phase: str) -> None:
    """While Airflow is stopped nobody is told; a component that is started again and again is no excuse; one that is not wanted is."""
    blind.airflow(phase)
    assert blind.after(1000) is Step.NONE
    blind.airflow("backoff")
    assert blind.after(2) is Step.PAGE
    (blind.runtime.run / "wanted.json").write_text(json.dumps({"services": ["postgres"]}))
    assert blind.after(5000) is Step.NONE
    blind.airflow("starting")
    assert blind.after(299) is Step.NONE


def test_a_silence_from_its_page_to_its_end(desk: Desk) -> None:
    """Looks of either watcher keep it calm; their end pages once, in Slack and in the database; the next look resolves both."""
    assert desk.after(0) is Step.NONE
    for watcher in ("poll", "watchdog", "poll"):
        desk.look(watcher)
        assert desk.after(110) is Step.NONE
    assert desk.after(121) is Step.PAGE and desk.after(10) is Step.NONE
    (message,) = desk.new()
    (incident,) = desk.incidents()
    assert incident["severity"] == "page" and "neither the poll nor a run of streams_watch has looked for 121 s" in incident["detail"]
    assert incident["message"]["ts"] == message["ts"] and incident["told_opened_at"] is not None, "nobody else tells it again"
    desk.look("watchdog")
    assert desk.after(10) is Step.RESOLVE and desk.after(10) is Step.NONE
    (reply,) = desk.new()
    assert "a watcher looks again" in reply["text"] and "Resolved" in desk.messages()[-2]["text"]
    (incident,) = desk.incidents()
    assert incident["resolved_at"] is not None and incident["told_resolved_at"] is not None


@pytest.mark.parametrize("gone", ["message_not_found", "channel_not_found"])
def test_a_message_that_is_gone_silences_nobody(desk: Desk, gone: str) -> None:
    """Its end is told anew, and so is the next silence."""
    assert desk.after(0) is Step.NONE
    desk.look()
    assert (desk.after(10), desk.after(121)) == (Step.NONE, Step.PAGE)
    desk.new()
    desk.fault(status=200, error=gone, times=1)
    desk.look()
    assert desk.after(10) is Step.RESOLVE
    (message,) = desk.new()
    assert message["thread_ts"] is None and message["text"].startswith("Resolved: ")
    assert desk.incidents()[0]["told_resolved_at"] is not None
    assert desk.after(130) is Step.PAGE and len(desk.new()) > 0


def test_an_agent_that_is_started_again_does_not_tell_again(desk: Desk) -> None:
    """It finds the incident of the one before, reminds later, and resolves it."""
    desk.after(0)
    assert desk.after(300) is Step.PAGE
    desk.new()
    after = Desk(desk.runtime, desk.slack)
    assert [after.after(0), after.after(301)] == [Step.NONE, Step.NONE] and after.new() == []
    assert after.after(1500) is Step.REMIND
    desk.look()
    assert after.after(10) is Step.NONE, "the poll only looks"
    desk.look("watchdog")
    assert after.after(10) is Step.RESOLVE
    assert [incident["resolved_at"] is None for incident in desk.incidents()] == [False]


def test_a_poll_that_looks_alone_keeps_nobody_calm(desk: Desk) -> None:
    """No run of streams_watch for six minutes is a page, however often the poll looks: only a run restarts a stream."""
    desk.after(0)
    desk.look("watchdog")
    for seconds in (90, 90, 90, 89):
        desk.look()
        assert desk.after(seconds) is Step.NONE
    desk.look()
    assert desk.after(92) is Step.PAGE
    assert "the poll looks, but no run of streams_watch has for 361 s" in desk.incidents()[0]["detail"]
    desk.look("watchdog")
    assert desk.after(10) is Step.RESOLVE


def test_a_database_that_takes_nothing_keeps_nobody_from_being_told(desk: Desk) -> None:
    """Questions are answered, writing waits: Slack comes first, and the wait ends."""
    desk.after(0)
    with database.connect(desk.runtime, "admin") as admin:
        admin.execute("LOCK TABLE k2.incidents IN SHARE MODE")
        assert desk.after(301) is Step.PAGE
        assert len(desk.new()) == 1
    assert desk.after(10) is Step.NONE and desk.incidents() == []


def test_an_incident_that_slack_never_took_ends_in_the_database(desk: Desk) -> None:
    """It is left to a run of streams_watch to tell, once there is one."""
    desk.after(0)
    desk.fault(status=200, error="fatal_error", times=1)
    assert desk.after(301) is Step.NONE
    assert [incident["told_opened_at"] for incident in desk.incidents()] == [None]
    desk.look()
    assert desk.after(10) is Step.NONE
    (incident,) = desk.incidents()
    assert incident["resolved_at"] is not None and incident["told_resolved_at"] is None


def test_a_clock_that_is_set_changes_nothing(desk: Desk) -> None:
    """A look that is dated an hour ago, or in an hour, is a look when it comes, and none afterwards."""
    desk.after(0)
    for hours in (1, -1):
        with database.connect(desk.runtime, "control") as connection:
            connection.execute(
                "INSERT INTO k2.watchers (watcher, seen_at) VALUES ('poll', %s) ON CONFLICT (watcher) DO UPDATE SET seen_at = excluded.seen_at",
                (datetime.now(UTC) + timedelta(hours=hours),),
            )
        assert desk.after(100) is Step.NONE
    assert desk.after(121) is Step.PAGE
