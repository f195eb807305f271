"""Links in Airflow's navigation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def navigation() -> list[dict[str, Any]]:
    """The Slack stand-in, where one is used; without a runtime file there is no link.

    Every Airflow process asks while it starts, so the file is read and not checked.
    """
    name = os.environ.get("K2_RUNTIME")
    if not name or not Path(name).is_file():
        return []
    slack = json.loads(Path(name).read_text()).get("slack_api")
    return [{"name": "Alerts (Slack stand-in)", "href": slack, "destination": "nav", "category": "browse"}] if slack else []
