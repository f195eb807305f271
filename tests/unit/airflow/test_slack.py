"""Incidents through the provider's hook to the stand-in for Slack."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from k2.airflow import slack
from k2.alerts.due import REMIND_AFTER, due
from k2.alerts.muting import Telling, plan
from k2.alerts.slack_simulator import Fault, Workspace, build
from k2.registry.platform import load_platform
from k2.registry.windows import Window

AT = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)


class Incidents:
    """The table of incidents, as the functions of k2.state.incidents see it."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = list(rows)
        self.now = AT
        self.windows: list[Window] = []

    def waiting(self, runtime: object) -> Telling:
        return plan([(dict(row), what) for row in self.rows if (what := due(row, self.now)) is not None], self.windows, {}, self.now)

    def told_in_digest(self, connection: object, incident: dict[str, Any]) -> None:
        row = next(r for r in self.rows if r["id"] == incident["id"])
        row |= {"told_opened_at": AT, "told_at": self.now, "told_times": incident["times"], "told_resolved_at": AT if row["resolved_at"] else None}

    def told(self, connection: object, incident: dict[str, Any], message: dict[str, Any]) -> None:
        row = next(r for r in self.rows if r["id"] == incident["id"])
        row |= {"message": message, "told_opened_at": row["told_opened_at"] or AT, "told_at": self.now, "told_times": incident["times"]}
        row["told_resolved_at"] = AT if incident["resolved_at"] else row["told_resolved_at"]

    def again(self, incident: int) -> None:
        row = next(r for r in self.rows if r["id"] == incident)
        row |= {"resolved_at": None, "resolution": None, "told_resolved_at": None, "times": row["times"] + 1, "detail": "signal 11"}

    def resolve(self, incident: int) -> None:
        row = next(r for r in self.rows if r["id"] == incident)
        row |= {"resolved_at": AT + timedelta(seconds=3), "resolution": "fence 4 has committed"}


def incident(number: int = 1, **changes: Any) -> dict[str, Any]:
    row = {
        "id": number,
        "key": f"stream:s{number}",
        "severity": "page",
        "title": f"Stream s{number} died",
        "detail": "signal 9",
        "evidence": None,
        "opened_at": AT,
    }
    return (
        row | dict.fromkeys(("resolved_at", "resolution", "message", "told_opened_at", "told_resolved_at", "told_at")) | {"times": 1, "told_times": 0} | changes
    )


@pytest.fixture
def workspace() -> Iterator[tuple[Workspace, str]]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    made = Workspace()
    server = uvicorn.Server(uvicorn.Config(build(made), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield made, f"http://127.0.0.1:{listener.getsockname()[1]}/api/"
    server.should_exit = True
    thread.join(5)


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch, workspace: tuple[Workspace, str]) -> Any:
    """A function that tells of the given incidents through the connection k2_slack."""
    connection = {"conn_type": "slack", "password": "xoxb-test", "extra": {"base_url": workspace[1]}}
    monkeypatch.setenv("AIRFLOW_CONN_K2_SLACK", json.dumps(connection))

    @contextmanager
    def connect(runtime: object, role: str) -> Iterator[None]:
        yield None

    def run(incidents: Incidents) -> list[slack.Told]:
        monkeypatch.setattr(slack, "connect", connect)
        monkeypatch.setattr(slack, "waiting", incidents.waiting)
        monkeypatch.setattr(slack, "told", incidents.told)
        monkeypatch.setattr(slack, "told_in_digest", incidents.told_in_digest)
        monkeypatch.setattr(slack.windows, "told", lambda connection, number: incidents.windows.clear())
        return slack.tell(SimpleNamespace(platform=load_platform(), airflow="http://127.0.0.1:8080"))  # type: ignore[arg-type]

    return run


def test_opened_then_resolved_is_one_message_with_a_reply(tell: Any, workspace: tuple[Workspace, str]) -> None:
    """The first message changes, and the thread says how it ended; nothing is sent twice."""
    incidents = Incidents(incident())
    assert [(t.what, t.ok) for t in tell(incidents)] == [("opened", True)]
    assert tell(incidents) == []
    incidents.resolve(1)
    assert [t.what for t in tell(incidents)] == ["resolved"]
    assert tell(incidents) == []
    message, reply = workspace[0].messages
    assert (message["channel"], message["text"][:9], reply["thread_ts"]) == ("#data-platform-oncall", "Resolved:", message["ts"])
    assert reply["text"] == "Resolved after 3 s: fence 4 has committed"


def test_an_incident_that_comes_back_is_the_same_message(tell: Any, workspace: tuple[Workspace, str]) -> None:
    """The first message is open again, and the thread has each turn; the channel hears nothing new."""
    incidents = Incidents(incident())
    tell(incidents)
    incidents.resolve(1)
    tell(incidents)
    incidents.again(1)
    assert [t.what for t in tell(incidents)] == ["again"]
    assert tell(incidents) == []
    message, _, again = workspace[0].messages
    assert message["text"].startswith("Stream s1 died") and again["thread_ts"] == message["ts"]
    assert again["text"].startswith("Again, for the 2nd time in ") and again["text"].endswith(": Stream s1 died. signal 11")


def test_a_page_that_stands_is_told_again(tell: Any, workspace: tuple[Workspace, str]) -> None:
    """Every half hour, in its thread, until it is over."""
    incidents = Incidents(incident())
    tell(incidents)
    incidents.now += REMIND_AFTER
    assert [t.what for t in tell(incidents)] == ["reminder"]
    assert tell(incidents) == []
    assert workspace[0].messages[-1]["text"].startswith("Still open after ")


def test_resolved_before_anyone_was_told_is_one_message(tell: Any, workspace: tuple[Workspace, str]) -> None:
    """Nobody is woken for what is over already, and the record of it is complete."""
    incidents = Incidents(incident())
    incidents.resolve(1)
    assert [t.what for t in tell(incidents)] == ["resolved"]
    assert tell(incidents) == [] and len(workspace[0].messages) == 1


def test_message_that_somebody_deleted_is_sent_anew(tell: Any, workspace: tuple[Workspace, str]) -> None:
    """An end is told even where the beginning is gone."""
    incidents = Incidents(incident())
    tell(incidents)
    workspace[0].messages.clear()
    incidents.resolve(1)
    assert [t.what for t in tell(incidents)] == ["resolved"]
    assert workspace[0].messages[-1]["text"].startswith("Resolved: Stream s1")


def test_refusal_of_one_does_not_hold_up_the_next(tell: Any, workspace: tuple[Workspace, str]) -> None:
    """Slack's error code is reported; the incident stays untold and goes through the next time."""
    workspace[0].fault = Fault(times=1, error="channel_not_found")
    incidents = Incidents(incident(1), incident(2))
    assert [(t.incident, t.ok, t.what) for t in tell(incidents)] == [(1, False, "Slack answered 'channel_not_found'"), (2, True, "opened")]
    assert [(t.incident, t.ok) for t in tell(incidents)] == [(1, True)]


def test_slack_away_stops_at_the_first(tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty incidents do not wait for twenty timeouts; all stay untold."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/api/"
        monkeypatch.setenv("AIRFLOW_CONN_K2_SLACK", json.dumps({"conn_type": "slack", "password": "xoxb-test", "extra": {"base_url": nobody}}))
        incidents = Incidents(incident(1), incident(2))
        found = tell(incidents)
    assert [(t.incident, t.ok) for t in found] == [(1, False)]
    assert len(incidents.waiting(None)) == 2


def test_missing_connection_is_a_failure_that_says_so(tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the connection nothing is told and nothing is lost."""
    monkeypatch.delenv("AIRFLOW_CONN_K2_SLACK")
    incidents = Incidents(incident(1))
    (found,) = tell(incidents)
    assert not found.ok and "k2_slack" in found.what
    assert len(incidents.waiting(None)) == 1


def test_a_window_mutes_then_one_digest_tells_and_an_open_page_pages(tell: Any, workspace: tuple[Workspace, str]) -> None:
    """Nothing while it is open; afterwards one message of all, one page for what is still open, and the end of a ticket by itself."""
    died, mended, lags = incident(1), incident(2), incident(3, severity="ticket", title="Stream s3 lags")
    incidents = Incidents(died, mended, lags)
    incidents.resolve(2)
    incidents.windows = [Window(5, "all", AT - timedelta(hours=1), AT + timedelta(hours=1), "ann", "moving the broker")]
    assert tell(incidents) == [] and workspace[0].messages == []
    incidents.now = AT + timedelta(hours=1)
    assert [(t.incident, t.ok) for t in tell(incidents)] == [(None, True), (1, True)]
    digest, page = workspace[0].messages
    assert (digest["channel"], digest["text"]) == ("#data-platform", "Maintenance of all is over: 3 incidents")
    body = str(digest["blocks"])
    for words in ("Stream s1 died: still open, and it pages", "Stream s2 died: over after 3 s", "Stream s3 lags: still open", "moving the broker", "ann"):
        assert words in body
    assert page["channel"] == "#data-platform-oncall" and tell(incidents) == []
    incidents.resolve(3)
    assert [(t.incident, t.what) for t in tell(incidents)] == [(3, "resolved")]
    assert workspace[0].messages[-1]["text"].startswith("Resolved: Stream s3 lags")


def test_a_digest_that_is_refused_keeps_no_page_waiting(tell: Any, workspace: tuple[Workspace, str]) -> None:
    """The page goes out at once, and the digest with the next run."""
    incidents = Incidents(incident(1), incident(2))
    incidents.resolve(2)
    incidents.now = AT + timedelta(minutes=1)
    incidents.windows = [Window(5, "all", AT - timedelta(hours=1), AT + timedelta(seconds=30), "ann", "moving the broker")]
    workspace[0].fault = Fault(times=1, error="channel_not_found")
    assert [(t.incident, t.ok) for t in tell(incidents)] == [(None, False), (1, True)]
    assert [(t.incident, t.what, t.ok) for t in tell(incidents)] == [(None, "digest", True)]
    assert "Stream s2 died: over" in str(workspace[0].messages[-1]["blocks"])
