"""Registers the platform's pages and links, and lets the scheduler import early what its tasks need."""

from __future__ import annotations

import sys
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from k2.airflow.plugin import navigation, pages, warm_up


class K2Plugin(AirflowPlugin):
    name = "k2"
    external_views = navigation()
    fastapi_apps = pages(sys.argv)

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        warm_up(sys.argv)
