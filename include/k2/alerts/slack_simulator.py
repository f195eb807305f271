"""A small stand-in for Slack: `python -m k2.alerts.slack_simulator --port N`.

It speaks the four methods of Slack's Web API that the platform uses (api.test, auth.test, chat.postMessage, chat.update)
and answers with Slack's own error codes. A person reads the channels at `/`, a test at `/messages`, and
`POST /fault {"status": 429, "retry_after": 1, "times": 1}` or `{"error": "channel_not_found", "times": 2}` makes the next
calls fail. Messages live in memory only. A token is valid when it begins with xoxb-.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

EMOJI = {
    ":red_circle:": "\N{LARGE RED CIRCLE}",
    ":large_orange_circle:": "\N{LARGE ORANGE CIRCLE}",
    ":large_yellow_circle:": "\N{LARGE YELLOW CIRCLE}",
    ":white_check_mark:": "\N{WHITE HEAVY CHECK MARK}",
}
KEEP = 1000


@dataclass
class Fault:
    """What the next `times` calls answer instead of the truth."""

    times: int
    status: int = 200
    error: str = "internal_error"
    retry_after: int = 1


@dataclass
class Workspace:
    """The channels of the stand-in. An empty `known` accepts every channel name."""

    known: frozenset[str] = frozenset()
    messages: list[dict[str, Any]] = field(default_factory=list)
    fault: Fault | None = None
    _last_ts: int = 0

    def call(self, method: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """One Web API call: Slack's answer as a dict, `ok` false with an error code as Slack has them."""
        if method == "api.test":
            return {"ok": True}
        if not token.startswith("xoxb-"):
            return {"ok": False, "error": "invalid_auth" if token else "not_authed"}
        if method == "auth.test":
            return {"ok": True, "team": "K2", "team_id": "T0K2", "user": "k2", "user_id": "U0K2", "url": "https://k2.slack.com/"}
        if method == "chat.postMessage":
            return self._post(body)
        if method == "chat.update":
            return self._update(body)
        return {"ok": False, "error": "unknown_method"}

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        channel = self._channel(body.get("channel", ""))
        if channel is None:
            return {"ok": False, "error": "channel_not_found"}
        if not body.get("text") and not body.get("blocks"):
            return {"ok": False, "error": "no_text"}
        self._last_ts = max(self._last_ts + 1, time.time_ns() // 1000)
        ts = f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"
        message = {"channel": channel, "ts": ts, "text": body.get("text", ""), "blocks": body.get("blocks") or []}
        message |= {"thread_ts": body.get("thread_ts"), "edited": None}
        self.messages.append(message)
        del self.messages[:-KEEP]
        return {"ok": True, "channel": _channel_id(channel), "ts": ts, "message": {"type": "message", "text": message["text"], "ts": ts}}

    def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        """As at Slack, it takes a channel's id and no name."""
        if body.get("channel", "").startswith("#"):
            return {"ok": False, "error": "channel_not_found"}
        for message in self.messages:
            if _channel_id(message["channel"]) == body.get("channel") and message["ts"] == body.get("ts"):
                message.update(text=body.get("text", message["text"]), blocks=body.get("blocks") or message["blocks"], edited=time.time())
                return {"ok": True, "channel": body["channel"], "ts": message["ts"], "text": message["text"]}
        return {"ok": False, "error": "message_not_found"}

    def _channel(self, given: str) -> str | None:
        """The name of a channel that is given by name or by id; None when there is none such."""
        name = given if given.startswith("#") else next((m["channel"] for m in self.messages if _channel_id(m["channel"]) == given), None)
        return name if name and (not self.known or name in self.known) else None

    def take_fault(self) -> Fault | None:
        if self.fault is None or self.fault.times <= 0:
            return None
        self.fault.times -= 1
        return self.fault


def _channel_id(name: str) -> str:
    return "C" + re.sub(r"[^A-Z0-9]", "", name.upper())


async def _body(request: Request) -> dict[str, Any]:
    """The arguments of a call: JSON or a form, whose `blocks` are JSON text."""
    raw = await request.body()
    if not raw:
        return {}
    if request.headers.get("content-type", "").startswith("application/json"):
        return dict(json.loads(raw))
    form = {key: value for key, value in (await request.form()).items() if isinstance(value, str)}
    return {**form, "blocks": json.loads(form["blocks"])} if form.get("blocks") else dict(form)


def build(workspace: Workspace) -> Starlette:
    """The HTTP application around a workspace."""

    async def api(request: Request) -> Response:
        fault = workspace.take_fault()
        if fault is not None and fault.status == 429:
            return JSONResponse({"ok": False, "error": "ratelimited"}, status_code=429, headers={"Retry-After": str(fault.retry_after)})
        if fault is not None:
            return JSONResponse({"ok": False, "error": fault.error}, status_code=fault.status)
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        try:
            body = await _body(request)
        except ValueError:
            return JSONResponse({"ok": False, "error": "invalid_json"})
        return JSONResponse(workspace.call(request.path_params["method"], token or str(body.get("token", "")), body))

    async def messages(request: Request) -> Response:
        return JSONResponse(workspace.messages)

    async def fault(request: Request) -> Response:
        workspace.fault = Fault(**await request.json())
        return JSONResponse({"ok": True})

    async def page(request: Request) -> Response:
        return HTMLResponse(render(workspace.messages))

    return Starlette(
        routes=[
            Route("/", page),
            Route("/messages", messages),
            Route("/fault", fault, methods=["POST"]),
            Route("/api/{method}", api, methods=["GET", "POST"]),
        ]
    )


def render(messages: list[dict[str, Any]]) -> str:
    """The channels as one HTML page, newest message last, replies under their message."""
    channels: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        if message["thread_ts"] is None:
            channels.setdefault(message["channel"], []).append(message)
    parts = []
    for channel, posts in sorted(channels.items()):
        parts.append(f"<h2>{html.escape(channel)}</h2>")
        for post in posts:
            replies = [m for m in messages if m["thread_ts"] == post["ts"]]
            parts.append(f"<article><b>K2</b> <time>{_time(post['ts'])}</time>{' <i>(edited)</i>' if post['edited'] else ''}{_blocks(post)}")
            parts.extend(f"<div class=reply><time>{_time(r['ts'])}</time> {_markup(r['text'])}</div>" for r in replies)
            parts.append("</article>")
    return PAGE.replace("BODY", "".join(parts) or "<p>No message yet.</p>")


def _time(ts: str) -> str:
    return datetime.fromtimestamp(float(ts), UTC).strftime("%H:%M:%S UTC")


def _blocks(message: dict[str, Any]) -> str:
    if not message["blocks"]:
        return f"<p>{_markup(message['text'])}</p>"
    parts = []
    for block in message["blocks"]:
        if block["type"] == "header":
            parts.append(f"<h3>{_emoji(html.escape(block['text']['text']))}</h3>")
        elif block["type"] == "section":
            texts = [block["text"]] if "text" in block else block["fields"]
            cells = "".join(f"<div>{_markup(t['text'])}</div>" for t in texts)
            parts.append(f"<div class={'text' if 'text' in block else 'fields'}>{cells}</div>")
        elif block["type"] == "actions":
            parts.extend(f'<a class=button href="{html.escape(e["url"])}">{html.escape(e["text"]["text"])}</a>' for e in block["elements"])
        elif block["type"] == "context":
            parts.append("<small>" + " ".join(_markup(e["text"]) for e in block["elements"]) + "</small>")
    return "".join(parts)


def _markup(text: str) -> str:
    """Slack's mrkdwn, whose text is escaped already but for quotes: bold, code, line ends."""
    safe = html.escape(html.unescape(text))
    safe = re.sub(r"\*(.+?)\*", r"<b>\1</b>", safe)
    safe = re.sub(r"`(.+?)`", r"<code>\1</code>", safe)
    return _emoji(safe.replace("\n", "<br>"))


def _emoji(text: str) -> str:
    for name, sign in EMOJI.items():
        text = text.replace(name, sign)
    return text


PAGE = """<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5><title>Slack stand-in</title>
<style>
body{font:15px/1.45 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1d1c1d}
h2{border-bottom:1px solid #ddd;padding-bottom:.3rem} h3{margin:.3rem 0;font-size:1rem}
article{border-left:4px solid #ddd;padding:.2rem .8rem;margin:1rem 0} time,small,i{color:#616061;font-size:.8rem}
.fields{display:grid;grid-template-columns:1fr 1fr;gap:.4rem;margin:.4rem 0} .text{margin:.4rem 0} small{display:block;margin-top:.4rem}
.reply{margin:.4rem 0 0 1rem;padding-left:.6rem;border-left:2px solid #1d9bd1}
.button{display:inline-block;border:1px solid #bbb;border-radius:4px;padding:.1rem .7rem;color:inherit;text-decoration:none}
code{background:#f4f4f4;padding:0 .2rem}
</style><h1>Slack stand-in</h1>BODY</html>"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m k2.alerts.slack_simulator", description="A stand-in for Slack's Web API on 127.0.0.1.")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args(argv)
    uvicorn.run(build(Workspace()), host="127.0.0.1", port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
