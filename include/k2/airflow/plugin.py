"""What plugins/k2_plugin.py registers. Every Airflow process loads it while it starts, so it imports next to nothing."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NEEDED_BY_TASKS = ("k2.airflow.watch", "k2.airflow.slack")


def navigation() -> list[dict[str, Any]]:
    """The Slack stand-in in Airflow's navigation, where one is used; without a runtime file there is no link."""
    name = os.environ.get("K2_RUNTIME")
    if not name or not Path(name).is_file():
        return []
    slack = json.loads(Path(name).read_text()).get("slack_api")
    return [{"name": "Alerts (Slack stand-in)", "href": slack, "destination": "nav", "category": "browse"}] if slack else []


def warm_up(arguments: Sequence[str]) -> None:
    """In the scheduler, import what the tasks of streams_watch need.

    LocalExecutor forks its workers from the scheduler and they fork the tasks, so what is imported here is there when a
    stream has died, instead of a tenth to half a second later. After a change of these modules the scheduler must be started again.
    """
    if "scheduler" in arguments:
        for module in NEEDED_BY_TASKS:
            importlib.import_module(module)
