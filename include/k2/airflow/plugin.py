"""What plugins/k2_plugin.py registers. Every Airflow process loads it while it starts, so it imports next to nothing."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NEEDED_BY_TASKS = ("k2.airflow.watch", "k2.airflow.slack")


PAGES = "/k2"
"""Where the API server serves k2.web."""
STREAMS_VIEW = {"name": "Streams", "href": f"{PAGES}/", "url_route": "k2-streams", "destination": "nav"}


def navigation() -> list[dict[str, Any]]:
    """What Airflow's navigation gains: the Streams page, and the Slack stand-in where one is used. Without a runtime file, nothing."""
    name = os.environ.get("K2_RUNTIME")
    if not name or not Path(name).is_file():
        return []
    slack = json.loads(Path(name).read_text()).get("slack_api")
    return [STREAMS_VIEW] + ([{"name": "Alerts (Slack stand-in)", "href": slack, "destination": "nav", "category": "browse"}] if slack else [])


def pages(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The Streams page, for the one process that serves pages: no other imports what it takes."""
    if "api-server" not in arguments:
        return []
    login = importlib.import_module("k2.web.login")
    return [{"app": login.streams_app(), "url_prefix": PAGES, "name": "K2 streams"}]


def warm_up(arguments: Sequence[str]) -> None:
    """In the scheduler, import what the tasks of streams_watch need.

    LocalExecutor forks its workers from the scheduler and they fork the tasks, so what is imported here is there when a
    stream has died, instead of a tenth to half a second later. After a change of these modules the scheduler must be started again.
    """
    if "scheduler" in arguments:
        for module in NEEDED_BY_TASKS:
            importlib.import_module(module)
