"""Incidents that people have not been told of, sent through the Slack provider's connection.

An incident that could not be sent stays untold in the database, and the next run of `streams_watch` tries again. A crash
between Slack's answer and the database's sends a message twice: twice is better than never.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow.providers.slack.hooks.slack import SlackHook
from airflow.sdk.exceptions import AirflowException
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.http_retry.builtin_handlers import ConnectionErrorRetryHandler, RateLimitErrorRetryHandler

from k2.alerts import messages
from k2.alerts.slack import post, show
from k2.alerts.waiting import waiting
from k2.registry.runtime import Runtime
from k2.state import windows
from k2.state.database import connect
from k2.state.incidents import told, told_in_digest

TIMEOUT_SECONDS = 10


class SlackRefused(AirflowException):
    """Slack did not take some messages. They stay untold, and the next run tries again."""


@dataclass(frozen=True)
class Told:
    incident: int | None
    """None of the digest of a maintenance window."""
    title: str
    what: str
    """As in k2.alerts.due.Due, or digest; for a message that was not taken, the reason."""
    ok: bool


def tell(runtime: Runtime) -> list[Told]:
    """Tell people what they do not know and no maintenance window mutes, and stop at the first sign that Slack is away.

    No row is locked while Slack is asked: the supervision writes to the same rows. Two callers at once would send
    everything twice, so there is one: `streams_watch`, which has one run at a time.
    """
    hook = SlackHook(
        slack_conn_id=runtime.platform.alerts.slack_connection,
        timeout=TIMEOUT_SECONDS,
        retry_handlers=[ConnectionErrorRetryHandler(max_retry_count=1), RateLimitErrorRetryHandler(max_retry_count=1)],
    )

    def call(method: str, body: dict[str, Any]) -> Any:
        return hook.call(method, json=body)

    telling = waiting(runtime)
    done: list[Told] = []
    for window, happened in telling.digests:
        message = messages.window_over(window, [incident for incident, _ in happened], runtime.platform.alerts.routes, runtime.airflow)
        try:
            post(call, message)
        except SlackApiError as error:  # no digest may keep a page waiting
            done.append(Told(None, message.text, f"Slack answered {error.response.get('error')!r}", ok=False))
            continue
        except (SlackClientError, OSError, AirflowException) as error:
            return [*done, Told(None, message.text, f"{type(error).__name__}: {error}", ok=False)]
        with connect(runtime, "control") as connection:
            windows.told(connection, window.id)
            for incident, enough in happened:
                if enough:
                    told_in_digest(connection, incident)
        done.append(Told(None, message.text, "digest", ok=True))
    for incident, what in telling.incidents:
        try:
            message = show(call, incident, what, runtime.platform.alerts.routes, runtime.airflow)
        except SlackApiError as error:
            done.append(Told(incident["id"], incident["title"], f"Slack answered {error.response.get('error')!r}", ok=False))
            continue
        except (SlackClientError, OSError, AirflowException) as error:
            done.append(Told(incident["id"], incident["title"], f"{type(error).__name__}: {error}", ok=False))
            break
        with connect(runtime, "control") as connection:
            told(connection, incident, message)
        done.append(Told(incident["id"], incident["title"], what, ok=True))
    return done
