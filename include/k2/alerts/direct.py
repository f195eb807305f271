"""Slack without Airflow: for whoever must tell people that Airflow does not.

The token is read from the file `slack_token` in the platform's secrets (mode 0600) each time that it is used, unless the
stand-in is. It is in no argument, no log and no repr.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k2.alerts.messages import Message
from k2.registry.runtime import Runtime

if TYPE_CHECKING:
    from slack_sdk import WebClient

STAND_IN_TOKEN = "xoxb-stand-in"  # noqa: S105 - the stand-in takes any token of this form
TIMEOUT_SECONDS = 10

Place = dict[str, Any]
"""Where a message is: {"channel", "ts"}."""


class NotTold(RuntimeError):
    """Slack did not take a message, or there is no token for it."""


@dataclass(frozen=True)
class Access:
    """What a call to Slack's Web API takes."""

    token: str = field(repr=False)
    base_url: str | None
    """Of the stand-in; None for Slack itself."""


def slack_access(runtime: Runtime) -> Access | None:
    """None without a stand-in and without a token."""
    if runtime.slack_api is not None:
        return Access(STAND_IN_TOKEN, f"{runtime.slack_api.rstrip('/')}/api/")
    file = runtime.secrets / "slack_token"
    token = file.read_text().strip() if file.is_file() else ""
    return Access(token, None) if token else None


def post(runtime: Runtime, message: Message) -> Place:
    """A new message. Raises NotTold."""
    body = {"channel": message.channel, "text": message.text, "blocks": message.blocks}
    answer = _call(runtime, lambda client: client.chat_postMessage(**body))
    return {"channel": answer["channel"], "ts": answer["ts"]}


def change(runtime: Runtime, place: Place, message: Message, reply: str, *, aloud: bool) -> None:
    """What became of a message: itself as it is now, and a reply under it, shown in the channel too if that is wished. Raises NotTold."""
    _call(runtime, lambda client: client.chat_update(channel=place["channel"], ts=place["ts"], text=message.text, blocks=message.blocks))
    _call(runtime, lambda client: client.chat_postMessage(channel=place["channel"], thread_ts=place["ts"], text=reply, reply_broadcast=aloud))


def _call(runtime: Runtime, ask: Callable[[WebClient], Any]) -> Any:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError, SlackClientError

    try:
        access = slack_access(runtime)
        if access is None:
            raise NotTold(f"there is no Slack token: put one into {runtime.secrets / 'slack_token'} (mode 0600)")
        client = WebClient(token=access.token, timeout=TIMEOUT_SECONDS, **({"base_url": access.base_url} if access.base_url else {}))
        return ask(client)
    except SlackApiError as error:
        raise NotTold(f"Slack answered {error.response.get('error')!r}") from None
    except (SlackClientError, OSError) as error:
        raise NotTold(f"Slack cannot be reached: {type(error).__name__}: {error}") from None
