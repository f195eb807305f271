"""Slack without Airflow: for whoever must tell people that Airflow does not.

The token is read from the file `slack_token` in the platform's secrets (mode 0600) each time that it is used, unless the
stand-in is. It is in no argument, no log and no repr.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k2.alerts import slack
from k2.alerts.due import Due
from k2.registry.runtime import Runtime

STAND_IN_TOKEN = "xoxb-stand-in"  # noqa: S105 - the stand-in takes any token of this form
TIMEOUT_SECONDS = 10


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
    token = slack_token(runtime.secrets)
    return Access(token, None) if token else None


def slack_token(secrets: Path) -> str:
    """Of Slack itself; empty where there is none."""
    file = secrets / "slack_token"
    return file.read_text().strip() if file.is_file() else ""


def show(runtime: Runtime, incident: dict[str, Any], what: Due, *, loud: frozenset[Due]) -> slack.Place:
    """Bring Slack up to date with one incident, as k2.alerts.slack.show does. Raises NotTold."""
    return _asked(runtime, lambda call: slack.show(call, incident, what, runtime.platform.alerts.routes, runtime.airflow, loud=loud))


def _asked(runtime: Runtime, ask: Callable[[slack.Call], slack.Place]) -> slack.Place:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError, SlackClientError

    try:
        access = slack_access(runtime)
        if access is None:
            raise NotTold(f"there is no Slack token: put one into {runtime.secrets / 'slack_token'} (mode 0600)")
        client = WebClient(token=access.token, timeout=TIMEOUT_SECONDS, **({"base_url": access.base_url} if access.base_url else {}))
        return ask(lambda method, body: client.api_call(method, json=body))
    except SlackApiError as error:
        raise NotTold(f"Slack answered {error.response.get('error')!r}") from None
    except (SlackClientError, OSError) as error:
        raise NotTold(f"Slack cannot be reached: {type(error).__name__}: {error}") from None
