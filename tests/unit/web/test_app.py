"""The pages as a browser gets them: behind the login, escaped, and honest when nothing can be known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.testclient import TestClient

from k2.registry.platform import Platform
from k2.state.database import StateUnavailable
from k2.web import app, board
from k2.web.board import Board, StreamPage

from .conftest import NASTY

TREE = Path(__file__).resolve().parents[3]
PAGES = ("/k2/", "/k2/streams/bronze_binance", "/k2/runbook")
ADDRESSES = (*PAGES, "/k2/api/streams", "/k2/api/streams/bronze_binance")
HTML = {"Accept": "text/html"}


def login(request: Request) -> None:
    """Lets a person pass who says so."""
    if request.headers.get("Authorization") != "Bearer me":
        raise HTTPException(401, "Not authenticated")


@pytest.fixture
def browser(platform: Platform, sample: Board, stream_page: StreamPage, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Logged in; the database holds the sample."""
    monkeypatch.setattr(board, "read", lambda runtime, now: sample)
    monkeypatch.setattr(board, "read_stream", lambda runtime, name, now: (sample, stream_page))
    airflow = FastAPI()
    airflow.mount("/k2", app.create(login, lambda: SimpleNamespace(platform=platform, tree=TREE)))
    with TestClient(airflow, headers=HTML | {"Authorization": "Bearer me"}) as client:
        yield client


def away(*_: object) -> None:
    raise StateUnavailable("PostgreSQL at 127.0.0.1:5432 did not answer: <refused>\nand more")


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_shown_without_a_login(browser: TestClient, address: str) -> None:
    """401 everywhere; a browser gets a link to the login, a script gets JSON; no word of a stream."""
    page = browser.get(address, headers={"Authorization": ""})
    assert page.status_code == 401
    assert "PROGRESSING" not in page.text and "signal 9" not in page.text
    if "/api/" not in address:
        assert "/auth/login?next=/k2/" in page.text
    script = browser.get(address, headers={"Authorization": "", "Accept": "application/json"})
    assert (script.status_code, script.json()) == (401, {"detail": "Not authenticated"})


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_can_be_changed(browser: TestClient, address: str) -> None:
    """There is no other method than reading, and no form."""
    assert {browser.request(method, address).status_code for method in ("POST", "PUT", "PATCH", "DELETE")} == {405}
    assert "<form" not in browser.get(address).text


def test_no_address_tells_of_the_others(browser: TestClient) -> None:
    """No schema and no documentation of the addresses, with a login or without."""
    assert {browser.get(f"/k2/{name}").status_code for name in ("docs", "redoc", "openapi.json")} == {404}


@pytest.mark.parametrize("address", PAGES)
def test_a_page_needs_nothing_but_itself(browser: TestClient, address: str) -> None:
    """Style and script carry the nonce that the policy names; nothing is fetched from elsewhere, nothing runs from an attribute."""
    answer = browser.get(address)
    assert answer.status_code == 200 and answer.headers["X-K2-Page"] == "1" and answer.headers["Cache-Control"] == "no-store"
    policy = answer.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
    assert nonce and "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'self'" in policy
    for tag, attributes in Tags(answer.text).found:
        assert not {"src", "srcset", "style"} & attributes.keys() and not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "img", "object", "base")
        if tag in ("script", "style"):
            assert attributes["nonce"] == nonce.group(1)
        if tag == "a":
            assert re.match(r"/|\.\./|#", attributes["href"] or ""), attributes
    assert nonce.group(1) not in browser.get(address).text, "each answer has its own"


def test_what_streams_say_is_escaped(browser: TestClient) -> None:
    """An exception's message, an incident and a person's reason are text, whatever they hold."""
    for address in ("/k2/", "/k2/streams/bronze_binance"):
        html = browser.get(address).text
        assert NASTY not in html and "alert(&#39;x&#39;)" in html
    assert "within a minute: &lt;silver_kraken&gt;" in browser.get("/k2/").text


def test_the_board_shows_each_condition(browser: TestClient) -> None:
    """Well, cannot be known, dead, and judged too long ago; the incidents above them; who watches."""
    html = " ".join(browser.get("/k2/").text.split())
    assert "3 of 4 streams need a look: bronze_kraken, silver_binance, silver_kraken." in html
    assert html.index("Stream silver_binance died") < html.index("<table")
    assert '<span class="pill good">PROGRESSING</span>' in html and '<span class="pill bad">DEAD</span>' in html
    assert '<span class="pill unknown">UNKNOWN</span>' in html
    assert "last judged IDLE" in html and '<span class="pill good">IDLE</span>' not in html, "a verdict of minutes ago is none"
    assert "The watchdog looked" in html and "it is late" in html and "The watchdog is late" in html
    assert "48,201 rows" in html and "fence 5, spare" in html and "812 of 1,300 MiB" in html
    assert "Maintenance of <b>silver</b> until" in html and "by admin: new disks" in html
    assert "1 of 2 spares warm, 1 warming up" in html
    assert "4.0 s, 21.5 s" in html and "201.0 min" in html
    assert '<span class="pill good">green</span>' in html and "The certificate of silver_binance is red: rows: batch 40 has 117 rows" in html


def test_the_page_of_a_stream_shows_what_led_to_its_verdict(browser: TestClient) -> None:
    """Each reading with its age and value, the outages as a picture and a table, the starts, and who asked for what."""
    html = browser.get("/k2/streams/bronze_binance").text
    for words in ("the head of the source", "the checkpoint", "the driver, by the host agent", "the driver&#39;s own word", "what is wanted"):
        assert words in html
    assert "<i>lag_rows</i> 118" in html and "market.crypto.trades 0:12345 1:12346" in html
    assert "<title>recovered after 19.6 s</title>" in html and "3 → 4" in html
    assert "after 1.7 s" in html and "desired running, generation 2, fence 1" in html
    assert "recorded, approved by someone" in html
    assert "./k2 explain bronze_binance" in html and 'href="/dags/streams_control"' in html and 'href="/k2/runbook#what-a-verdict-means"' in html


def test_the_links_into_the_runbook_lead_somewhere(browser: TestClient) -> None:
    """Each fragment that a page links to is a heading of the runbook."""
    anchors = {a.get("id") for tag, a in Tags(browser.get("/k2/runbook").text).found if tag == "h2"}
    pages = [path.read_text() for path in (TREE / "include/k2/web/templates").glob("*.html")]
    linked = {match for page in pages for match in re.findall(r"/runbook#([a-z-]+)", page)}
    assert linked and linked <= anchors


def test_an_unknown_stream_is_not_found(browser: TestClient) -> None:
    """404 that names those that there are, and escapes what was asked for."""
    answer = browser.get("/k2/streams/<b>gold", headers={"Accept": "application/json"})
    assert answer.status_code == 404 and "bronze_binance" in answer.json()["detail"]
    assert "<b>gold" not in browser.get("/k2/streams/<b>gold").text


def test_without_the_database_nothing_is_known(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, every declared stream as cannot know, why, and what to do; the script's twin says the same."""
    monkeypatch.setattr(board, "read", away)
    monkeypatch.setattr(board, "read_stream", away)
    for address in ("/k2/", "/k2/streams/bronze_binance"):
        page = browser.get(address)
        assert page.status_code == 503 and page.text.count(">cannot know</span>") == 4 and page.headers["X-K2-Page"] == "1"
        assert "did not answer: &lt;refused&gt;" in page.text and "./k2 up" in page.text and "PROGRESSING" not in page.text
    answer = browser.get("/k2/api/streams")
    assert answer.status_code == 503 and answer.json()["streams"] is None and "did not answer" in answer.json()["unknown"]
    assert browser.get("/k2/runbook").status_code == 200, "the runbook can be read when it is needed most"


def test_the_twin_for_scripts(browser: TestClient) -> None:
    """The same facts as values."""
    found = browser.get("/k2/api/streams").json()
    rows = {row["stream"]: row for row in found["streams"]}
    assert (found["tone"], rows["silver_binance"]["tone"], rows["silver_kraken"]["late"]) == ("bad", "bad", True)
    assert rows["bronze_binance"]["lag_rows"] == 118 and rows["bronze_kraken"]["lag_rows"] is None
    assert rows["bronze_binance"]["driver"]["fence"] == 5 and rows["silver_binance"]["last_outage"]["state"] == "open"
    assert found["watchers"][1] == {"watcher": "watchdog", "seen_at": found["watchers"][1]["seen_at"], "late": True, "detail": ""}
    page = browser.get("/k2/api/streams/bronze_binance").json()
    assert (rows["silver_binance"]["certificate"]["color"], rows["silver_kraken"]["certificate"]) == ("red", None)
    assert len(page["outages"]) == 3 and page["audit"][0]["who"] == "admin" and page["launches"][0]["fence"] == 5


def test_the_endpoints_leave_the_event_loop_alone() -> None:
    """Each is a plain function, which FastAPI runs in a thread."""
    import inspect

    made = app.create(login)
    endpoints: list[Callable[..., object]] = [route.endpoint for route in made.routes if hasattr(route, "endpoint")]
    assert len(endpoints) == 5 and not any(inspect.iscoroutinefunction(endpoint) for endpoint in endpoints)


def test_now_is_utc() -> None:
    """What is shown as UTC is."""
    from k2.web.render import clock

    assert clock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "01-02 03:04:05"
