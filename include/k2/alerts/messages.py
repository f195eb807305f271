"""An incident as Slack messages: opened, resolved, and the reply under the first one. Plain values in, plain values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from k2.alerts.due import Due
from k2.registry.platform import Routes
from k2.registry.windows import Window

SIGNS = {"page": ":red_circle:", "ticket": ":large_orange_circle:", "digest": ":large_yellow_circle:"}
WHAT_TO_EXPECT = {
    "page": "Page: act now.",
    "ticket": "Ticket: act today.",
    "digest": "For information: can wait until morning.",
}
STREAM_ADVICE = (
    "What to do: nothing yet. The watchdog starts the stream again by itself, and this message changes once it has committed. "
    "If that takes more than five minutes, it pages."
)
HELD_ADVICE = (
    "What to do: decide. The watchdog does not start this stream again by itself, or only now and then. ./k2 explain shows what it saw, the runbook "
    "what to do about each verdict; streams_control starts the stream again."
)
DEPENDENCY_ADVICE = (
    "What to do: bring it back; ./k2 status shows what runs, ./k2 logs the end of its log. The streams that wait for it are held, "
    "nothing of it counts against them, and they go on by themselves."
)
ADVICE = {"stream": STREAM_ADVICE, "held": HELD_ADVICE, "dependency": DEPENDENCY_ADVICE}
CAPTIONS = ("What to do:", "How it ended:")
HEADER_LIMIT = 150
SECTION_LIMIT = 2900


@dataclass(frozen=True)
class Message:
    """One message: `text` is what a notification shows, `blocks` what the channel shows."""

    channel: str
    text: str
    blocks: list[dict[str, Any]]


def route(severity: str, routes: Routes) -> str:
    """The channel of a severity. Raises KeyError for an unknown one."""
    return {"page": routes.page, "ticket": routes.ticket, "digest": routes.digest}[severity]


def opened(incident: dict[str, Any], routes: Routes, airflow: str) -> Message:
    """The message of an incident that is open. `airflow` is the root of the UI."""
    return Message(
        channel=route(incident["severity"], routes),
        text=f"{incident['title']} (since {_clock(incident['opened_at'])})",
        blocks=[
            _header(f"{SIGNS[incident['severity']]} {incident['title']}"),
            _fields(Since=_clock(incident["opened_at"]), Concerns=subject(incident["key"]), Urgency=WHAT_TO_EXPECT[incident["severity"]]),
            _section("\n".join(filter(None, (incident["detail"], advice(incident))))),
            *_evidence(incident),
            _button(airflow, incident["key"]),
            _footer(incident),
        ],
    )


def resolved(incident: dict[str, Any], routes: Routes, airflow: str) -> Message:
    """What the message of an incident becomes once it is resolved."""
    return Message(
        channel=route(incident["severity"], routes),
        text=f"Resolved: {incident['title']} (after {duration(incident['opened_at'], incident['resolved_at'])})",
        blocks=[
            _header(f":white_check_mark: Resolved: {incident['title']}"),
            _fields(
                Since=_clock(incident["opened_at"]),
                Until=_clock(incident["resolved_at"]),
                Lasted=duration(incident["opened_at"], incident["resolved_at"]),
                Concerns=subject(incident["key"]),
            ),
            _section(f"{incident['detail']}\nHow it ended: {incident['resolution']}"),
            *_evidence(incident),
            _button(airflow, incident["key"]),
            _footer(incident),
        ],
    )


def reply(incident: dict[str, Any], due: Due, now: datetime) -> str:
    """The line that is added to the thread of an incident that people know."""
    since = duration(incident["opened_at"], incident["resolved_at"] or now)
    if due is Due.RESOLVED:
        return escape(f"Resolved after {since}: {incident['resolution']}")
    if due is Due.REMINDER:
        return escape(f"Still open after {since}: {incident['title']}. {incident['detail']}")
    return escape(f"Again, for the {ordinal(incident['times'])} time in {since}: {incident['title']}. {incident['detail']}")


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def window_over(window: Window, happened: Sequence[dict[str, Any]], routes: Routes, airflow: str) -> Message:
    """The digest of a maintenance window that has ended: what happened during it, and what is still open."""
    title = f"Maintenance of {window.scope} is over: " + (f"{len(happened)} incident{'s' if len(happened) > 1 else ''}" if happened else "nothing happened")
    lines = []
    for incident in happened:
        began = incident["opened_at"].astimezone(UTC)
        if incident["resolved_at"] is None:
            how = "still open" + (", and it pages" if incident["severity"] == "page" else "")
        else:
            how = f"over after {duration(incident['opened_at'], incident['resolved_at'])}"
        often = f", {incident['times']} times" if incident["times"] > 1 else ""
        lines.append(f"{began:%H:%M:%S} {incident['title']}{often}: {how}")
    return Message(
        channel=routes.digest,
        text=title,
        blocks=[
            _header(f":wrench: {title}"),
            _fields(From=_clock(window.starts_at), Until=_clock(window.ends_at), Asked_by=window.who, Because=window.reason),
            _section("\n".join(lines) or "People were not told of incidents during this time, and there were none."),
            _button(airflow, "stream:"),
        ],
    )


def subject(key: str) -> str:
    """What an incident is about, from its key.

    Keys: stream:<stream>, down:<stream>[:<stream>...], held:<stream>, certificate:<stream>, budget:<stream>, memory:<stream>, dependency:<name>,
    watchers:<watcher>, dag:<dag>[:<task>] or health:<check>:<subject or *>:<status>.
    """
    parts = key.split(":")
    if _kind(key) == "down":
        return ", ".join(parts[1:])
    if _kind(key) == "health" and len(parts) > 2 and parts[2] != "*":
        return parts[2]
    return parts[1] if len(parts) > 1 else key


def advice(incident: dict[str, Any]) -> str:
    """What to do about an incident of this kind, unless its detail says so already."""
    return "" if CAPTIONS[0] in incident["detail"] else ADVICE.get(_kind(incident["key"]), "")


def _kind(key: str) -> str:
    return key.split(":", 1)[0]


def link(airflow: str, key: str) -> str:
    """The page of the Airflow UI on which a person begins: the DAG that found it."""
    parts = key.split(":")
    dag = {"health": "platform_health", "dag": parts[1] if len(parts) > 1 else "streams_watch"}.get(parts[0], "streams_watch")
    return f"{airflow.rstrip('/')}/dags/{dag}"


def duration(start: datetime, end: datetime) -> str:
    """A span as a person says it: 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    seconds = max(0, round((end - start).total_seconds()))
    for size, name, small, small_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // small
            return f"{seconds // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{seconds} s"


def escape(text: str) -> str:
    """Slack reads &, < and > as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _header(text: str) -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": _cut(text, HEADER_LIMIT), "emoji": True}}


def _section(text: str) -> dict[str, Any]:
    """Details are plain text, because the terminal shows them too; only their captions are made bold here."""
    marked = "\n".join(_bold_caption(line) for line in escape(text).splitlines())
    return {"type": "section", "text": {"type": "mrkdwn", "text": _cut(marked, SECTION_LIMIT)}}


def _evidence(incident: dict[str, Any]) -> list[dict[str, Any]]:
    """What was found beside the verdict, as it was printed."""
    if not incident["evidence"]:
        return []
    return [{"type": "section", "text": {"type": "mrkdwn", "text": f"```{_cut(escape(incident['evidence']), SECTION_LIMIT)}```"}}]


def _bold_caption(line: str) -> str:
    caption = next((c for c in CAPTIONS if line.startswith(c)), None)
    return f"*{caption}*{line.removeprefix(caption)}" if caption else line


def _fields(**values: str) -> dict[str, Any]:
    return {"type": "section", "fields": [{"type": "mrkdwn", "text": f"*{name.replace('_', ' ')}*\n{escape(value)}"} for name, value in values.items()]}


def _button(airflow: str, key: str) -> dict[str, Any]:
    return {"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "Open in Airflow"}, "url": link(airflow, key)}]}


def _footer(incident: dict[str, Any]) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": f"Incident {incident['id']} · `{escape(incident['key'])}`"}]}
