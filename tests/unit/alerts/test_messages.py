"""Incidents as Slack messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.alerts import messages
from k2.alerts.due import Due
from k2.registry.platform import Routes

ROUTES = Routes(page="#oncall", ticket="#tickets", digest="#digest")
AIRFLOW = "http://127.0.0.1:8080"
OPENED = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)


def incident(**changes: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "key": "stream:bronze_binance",
        "severity": "page",
        "title": "Stream bronze_binance died",
        "detail": "its driver with fence 3 was ended by signal 9",
        "evidence": None,
        "opened_at": OPENED,
        "resolved_at": None,
        "resolution": None,
        "message": None,
    } | changes


def words(message: messages.Message) -> str:
    return str(message.blocks)


def test_opened_names_stream_since_what_and_where_to_look() -> None:
    """A person can act on the first message alone."""
    message = messages.opened(incident(), ROUTES, AIRFLOW)
    assert message.channel == "#oncall"
    assert message.text == "Stream bronze_binance died (since 2026-11-21 06:30:00 UTC)"
    for expected in ("bronze_binance", "2026-11-21 06:30:00 UTC", "ended by signal 9", "*What to do:*", f"{AIRFLOW}/dags/streams_watch"):
        assert expected in words(message)


def test_resolved_says_how_long_and_how_it_ended() -> None:
    """The message that replaces the first one tells the whole story."""
    done = incident(resolved_at=OPENED + timedelta(seconds=185), resolution="fence 4 has committed batch 12")
    message = messages.resolved(done, ROUTES, AIRFLOW)
    assert message.text == "Resolved: Stream bronze_binance died (after 3 min 5 s)"
    assert "*How it ended:* fence 4 has committed batch 12" in words(message)
    assert messages.reply(done, Due.RESOLVED, OPENED) == "Resolved after 3 min 5 s: fence 4 has committed batch 12"


@pytest.mark.parametrize(("severity", "channel"), [("page", "#oncall"), ("ticket", "#tickets"), ("digest", "#digest")])
def test_severity_chooses_the_channel(severity: str, channel: str) -> None:
    """Each severity has its route."""
    assert messages.opened(incident(severity=severity), ROUTES, AIRFLOW).channel == channel


def test_unknown_severity_is_refused() -> None:
    """A severity without a route is a mistake, not a silent default."""
    with pytest.raises(KeyError):
        messages.route("whisper", ROUTES)


@pytest.mark.parametrize(
    ("key", "subject", "page"),
    [
        ("stream:silver_kraken", "silver_kraken", "streams_watch"),
        ("dag:platform_health:examine", "platform_health", "platform_health"),
        ("dag:streams_watch", "streams_watch", "streams_watch"),
        ("health:memory:kafka:red", "kafka", "platform_health"),
        ("health:lag_rows:*:unknown", "lag_rows", "platform_health"),
        ("down:bronze_kraken:silver_kraken", "bronze_kraken, silver_kraken", "streams_watch"),
        ("agent", "agent", "streams_watch"),
    ],
)
def test_key_gives_subject_and_page(key: str, subject: str, page: str) -> None:
    """What an incident is about, and where a person begins, follow from its key."""
    assert messages.subject(key) == subject
    assert messages.link(AIRFLOW + "/", key) == f"{AIRFLOW}/dags/{page}"


def test_markup_of_slack_is_escaped() -> None:
    """An error text with <, > and & is shown, not read as a link."""
    message = messages.opened(incident(detail="Map<String> && <http://x|y>"), ROUTES, AIRFLOW)
    section = message.blocks[2]["text"]["text"]
    assert section.startswith("Map&lt;String&gt; &amp;&amp; &lt;http://x|y&gt;")


@given(title=st.text(min_size=1, max_size=400), detail=st.text(max_size=5000))
def test_slack_limits_hold(title: str, detail: str) -> None:
    """Whatever an incident says, the message stays within what Slack accepts."""
    message = messages.opened(incident(title=title, detail=detail), ROUTES, AIRFLOW)
    assert len(message.blocks[0]["text"]["text"]) <= 150
    assert all(len(block["text"]["text"]) <= 3000 for block in message.blocks if block["type"] == "section" and "text" in block)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (185, "3 min 5 s"), (3600, "1 h"), (7800, "2 h 10 min"), (90_000, "1 d 1 h"), (-5, "0 s")]
)
def test_duration_reads_like_a_person(seconds: int, words: str) -> None:
    """Two units at most."""
    assert messages.duration(OPENED, OPENED + timedelta(seconds=seconds)) == words


def test_evidence_is_shown_as_it_was_printed() -> None:
    """A block of its own, in both messages; without evidence there is none."""
    for make in (messages.opened, messages.resolved):
        plain, told = (make(incident(evidence=evidence, resolved_at=OPENED, resolution="-"), ROUTES, AIRFLOW).blocks for evidence in (None, "at <init>"))
        assert [block["text"]["text"] for block in told if block not in plain] == ["```at &lt;init&gt;```"]


@pytest.mark.parametrize(("number", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st"), (113, "113th")])
def test_ordinals(number: int, word: str) -> None:
    """As a person says them."""
    assert messages.ordinal(number) == word
