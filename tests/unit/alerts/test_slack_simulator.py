"""The stand-in for Slack, through the client that the provider uses."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import uvicorn
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

from k2.alerts.slack_simulator import Workspace, build, render

TOKEN = "xoxb-test"  # noqa: S105


@dataclass
class StandIn:
    root: str

    def client(self, token: str = TOKEN, **more: object) -> WebClient:
        return WebClient(token=token, base_url=f"{self.root}/api/", timeout=5, **more)  # type: ignore[arg-type]

    def messages(self) -> list[dict[str, object]]:
        return httpx.get(f"{self.root}/messages").json()

    def fault(self, **fault: object) -> None:
        httpx.post(f"{self.root}/fault", json=fault).raise_for_status()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(Workspace(known=frozenset({"#oncall"}))), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield StandIn(f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.should_exit = True
    thread.join(5)


def refused(error: pytest.ExceptionInfo[SlackApiError]) -> str:
    return str(error.value.response["error"])


def test_api_and_auth(stand_in: StandIn) -> None:
    """api.test needs no token; auth.test refuses one that Slack would not have given."""
    assert stand_in.client(token="").api_test()["ok"]
    assert stand_in.client().auth_test()["team"] == "K2"
    with pytest.raises(SlackApiError) as error:
        stand_in.client(token="nonsense").auth_test()
    assert refused(error) == "invalid_auth"


def test_post_update_and_reply(stand_in: StandIn) -> None:
    """A message is posted by the channel's name, changed by its id and time, and answered in its thread."""
    client = stand_in.client()
    first = client.chat_postMessage(channel="#oncall", text="opened", blocks=[{"type": "header", "text": {"type": "plain_text", "text": "opened"}}])
    client.chat_update(channel=first["channel"], ts=first["ts"], text="resolved")
    client.chat_postMessage(channel=first["channel"], thread_ts=first["ts"], text="after 3 s")
    message, reply = stand_in.messages()
    assert (message["channel"], message["text"], message["edited"] is not None) == ("#oncall", "resolved", True)
    assert reply["thread_ts"] == message["ts"] != reply["ts"]


@pytest.mark.parametrize(
    ("call", "arguments", "code"),
    [
        ("chat.postMessage", {"channel": "#nowhere", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": "#oncall"}, "no_text"),
        ("chat.update", {"channel": "#oncall", "ts": "1.0", "text": "x"}, "channel_not_found"),
        ("conversations.list", {}, "unknown_method"),
    ],
)
def test_refusals_are_those_of_slack(stand_in: StandIn, call: str, arguments: dict[str, str], code: str) -> None:
    """Wrong calls are answered with Slack's own codes."""
    with pytest.raises(SlackApiError) as error:
        stand_in.client().api_call(call, json=arguments)
    assert refused(error) == code


def test_unknown_message_cannot_be_changed(stand_in: StandIn) -> None:
    """A time that no message of the channel has is message_not_found."""
    client = stand_in.client()
    channel = client.chat_postMessage(channel="#oncall", text="x")["channel"]
    with pytest.raises(SlackApiError) as error:
        client.chat_update(channel=channel, ts="1.000000", text="y")
    assert refused(error) == "message_not_found"


def test_rate_limit_on_demand(stand_in: StandIn) -> None:
    """A 429 names the wait, and a client that keeps to it gets through."""
    stand_in.fault(status=429, retry_after=0, times=1)
    client = stand_in.client(retry_handlers=[RateLimitErrorRetryHandler(max_retry_count=1)])
    assert client.chat_postMessage(channel="#oncall", text="x")["ok"]
    stand_in.fault(status=429, retry_after=1, times=1)
    with pytest.raises(SlackApiError) as error:
        stand_in.client().chat_postMessage(channel="#oncall", text="x")
    assert refused(error) == "ratelimited"
    assert error.value.response.headers["Retry-After"] == "1"


def test_error_on_demand(stand_in: StandIn) -> None:
    """A fault is answered so many times and no more."""
    stand_in.fault(error="channel_not_found", times=1)
    with pytest.raises(SlackApiError):
        stand_in.client().chat_postMessage(channel="#oncall", text="x")
    assert stand_in.client().chat_postMessage(channel="#oncall", text="x")["ok"]


def test_page_shows_the_channel_and_escapes(stand_in: StandIn) -> None:
    """A person sees channel, message and reply; markup in a message stays text."""
    client = stand_in.client()
    first = client.chat_postMessage(channel="#oncall", text="*bold* &lt;script&gt; <script>")
    client.chat_postMessage(channel=first["channel"], thread_ts=first["ts"], text="the reply")
    page = httpx.get(stand_in.root).text
    assert "#oncall" in page and "<b>bold</b> &lt;script&gt; &lt;script&gt;" in page and "the reply" in page
    assert "No message yet" in render([])
