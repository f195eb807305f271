"""The Streams page of a running Airflow: behind its login, with what the watchdog knows."""

from __future__ import annotations

import time

import httpx
import psycopg
import pytest

from k2.registry.runtime import Runtime
from k2.stack import airflow
from k2.state import database

from .conftest import Airflow, wait_for

ADDRESSES = ("/k2/", "/k2/streams/bronze_binance", "/k2/runbook", "/k2/api/streams", "/k2/api/streams/bronze_binance")
WELL = {"IDLE", "PROGRESSING"}


@pytest.fixture
def browser(platform_stack: Runtime) -> httpx.Client:
    """Logged in by the form's way: Airflow's cookie, no header."""
    password = (platform_stack.secrets / "airflow_admin").read_text()
    token = httpx.post(f"{platform_stack.airflow}/auth/token", json={"username": airflow.LOGIN, "password": password}).json()["access_token"]
    return httpx.Client(base_url=platform_stack.airflow, cookies={"_token": token}, headers={"Accept": "text/html"}, timeout=30)


def all_well(ui: Airflow) -> dict[str, str] | None:
    """The verdicts of all streams once each is well."""
    answer = ui.http.get("/k2/api/streams")
    found = {row["stream"]: row["verdict"] for row in answer.json()["streams"]} if answer.status_code == 200 else {}
    return found if found and set(found.values()) <= WELL else None


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_a_login_nothing_is_shown(platform_stack: Runtime, address: str) -> None:
    """No cookie, no token, a forged one: refused by the live server, with no word of a stream."""
    for headers in ({}, {"Authorization": "Bearer forged"}, {"Cookie": "_token=forged"}):
        answer = httpx.get(platform_stack.airflow + address, headers={"Accept": "text/html"} | headers, timeout=30)
        assert answer.status_code in (401, 403), (headers, answer.status_code)
        assert "PROGRESSING" not in answer.text and "<table" not in answer.text


def test_the_page_shows_every_stream_and_its_verdict(platform_stack: Runtime, ui: Airflow, browser: httpx.Client) -> None:
    """With a login, by cookie and by token; it is in Airflow's navigation."""
    verdicts = wait_for("four streams that are well", lambda: all_well(ui), 300)
    assert list(verdicts) == list(platform_stack.platform.streams)
    page = browser.get("/k2/").raise_for_status().text
    assert all(f'href="/k2/streams/{name}"' in page for name in verdicts)
    assert page.count('class="pill good"') >= 3 and "The poll looked" in page and "spare" in page
    plugins = {plugin["name"]: plugin for plugin in ui.get("plugins")["plugins"]}
    assert [view["url_route"] for view in plugins["k2"]["external_views"] if view["name"] == "Streams"] == ["k2-streams"]


def test_a_stream_is_explained(ui: Airflow, browser: httpx.Client) -> None:
    """Each reading behind the verdict, its start, and its certificate when there is one."""
    wait_for("four streams that are well", lambda: all_well(ui), 300)
    page = browser.get("/k2/streams/silver_binance").raise_for_status().text
    for source in ("what is wanted", "the driver, by the host agent", "the checkpoint", "the head of the source"):
        assert source in page
    document = ui.http.get("/k2/api/streams/silver_binance").raise_for_status().json()
    readings = {reading["source"]: reading for reading in document["readings"]}
    assert all(reading["error"] is None for reading in readings.values()), readings
    assert readings["the driver, by the host agent"]["value"]["state"] == "running"
    assert document["launches"][0]["first_commit_at"] is not None and document["last_commit_batch"] >= 0


def test_the_page_answers_quickly(ui: Airflow) -> None:
    """The server's own share is a few hundredths of a second; the limit leaves room for a machine with four drivers on it."""
    took = []
    for _ in range(20):
        began = time.monotonic()
        ui.http.get("/k2/").raise_for_status()
        took.append(time.monotonic() - began)
    print(f"streams page: median {sorted(took)[10] * 1000:.0f} ms, slowest {max(took) * 1000:.0f} ms")
    assert sorted(took)[10] < 0.5


def test_without_the_lakehouse_database_the_page_says_so(platform_stack: Runtime, ui: Airflow, browser: httpx.Client) -> None:
    """Airflow goes on, and the page neither shows old verdicts nor fails."""
    with psycopg.connect(**platform_stack.conninfo("admin") | {"dbname": "postgres"}, autocommit=True) as admin:  # type: ignore[arg-type]
        admin.execute("ALTER ROLE k2_reader NOLOGIN")
        try:
            page = browser.get("/k2/")
            twin = ui.http.get("/k2/api/streams")
        finally:
            admin.execute("ALTER ROLE k2_reader LOGIN")
    assert page.status_code == 503 and page.text.count(">cannot know</span>") == len(platform_stack.platform.streams)
    assert twin.status_code == 503 and "did not answer" in twin.json()["unknown"]
    with database.connect(platform_stack, "reader"):
        assert browser.get("/k2/").status_code == 200
