"""An incident in Slack: one message that changes with it, and a thread of what happened. Whoever calls brings the connection."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from k2.alerts import messages
from k2.alerts.due import Due
from k2.registry.platform import Routes

GONE = frozenset({"message_not_found", "channel_not_found", "cant_update_message", "edit_window_closed"})
"""Slack's errors for a message that cannot be changed any more: somebody removed it, or its channel."""
LOUD = frozenset({Due.REMINDER})

Place = dict[str, Any]
"""Where a message is: {"channel", "ts"}."""
Call = Callable[[str, dict[str, Any]], Any]
"""Calls a method of Slack's Web API with a JSON body. Raises slack_sdk's errors."""


def post(call: Call, message: messages.Message) -> Place:
    """A new message."""
    answer = call("chat.postMessage", {"channel": message.channel, "text": message.text, "blocks": message.blocks})
    return {"channel": answer["channel"], "ts": answer["ts"]}


def show(call: Call, incident: dict[str, Any], what: Due, routes: Routes, airflow: str, *, loud: frozenset[Due] = LOUD) -> Place:
    """Bring Slack up to date with one incident. Returns where its message is: a new place if the old message is gone.

    What is `loud` is shown in the channel too; any other reply stays in the thread.
    """
    from slack_sdk.errors import SlackApiError

    make = messages.resolved if what is Due.RESOLVED else messages.opened
    message = make(incident, routes, airflow)
    place = incident["message"]
    if not place:
        return post(call, message)
    try:
        call("chat.update", {"channel": place["channel"], "ts": place["ts"], "text": message.text, "blocks": message.blocks})
    except SlackApiError as error:
        if error.response.get("error") not in GONE:
            raise
        return post(call, message)
    answer = {"channel": place["channel"], "thread_ts": place["ts"], "text": messages.reply(incident, what, datetime.now(UTC))}
    call("chat.postMessage", answer | ({"reply_broadcast": True} if what in loud else {}))
    return {"channel": place["channel"], "ts": place["ts"]}
