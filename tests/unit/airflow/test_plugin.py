"""What the plugin brings into each Airflow process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from k2.airflow import plugin

INCLUDE = Path(__file__).resolve().parents[3] / "include"
PROBE = """
import sys
from k2.airflow.plugin import navigation, pages, warm_up
navigation(); warm_up(["airflow", "api-server"]); pages(["airflow", "triggerer"])
print(sorted(m for m in sys.modules if m.split(".")[0] in ("airflow", "psycopg", "pydantic", "httpx", "fastapi", "jinja2")))
"""


def test_links_only_to_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a runtime there are none; with Slack itself there is none to the stand-in."""
    file = tmp_path / "runtime.json"
    monkeypatch.setenv("K2_RUNTIME", str(file))
    assert plugin.navigation() == []
    file.write_text(json.dumps({"slack_api": None}))
    assert plugin.navigation() == [plugin.STREAMS_VIEW]
    file.write_text(json.dumps({"slack_api": "http://127.0.0.1:9"}))
    assert [link["href"] for link in plugin.navigation()] == ["/k2/", "http://127.0.0.1:9"]


def test_only_the_api_server_serves_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes to serve them is imported there alone; the page is where the navigation says."""
    imported: list[str] = []
    monkeypatch.setattr(plugin.importlib, "import_module", lambda name: imported.append(name) or SimpleNamespace(streams_app=lambda: "app"))
    assert plugin.pages(["airflow", "scheduler"]) == [] and imported == []
    (served,) = plugin.pages(["airflow", "api-server"])
    assert imported == ["k2.web.login"] and served["app"] == "app"
    assert plugin.STREAMS_VIEW["href"] == f"{served['url_prefix']}/"


def test_only_the_scheduler_imports_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler's workers are forked from it; no other process has a use for the modules."""
    imported: list[str] = []
    monkeypatch.setattr(plugin.importlib, "import_module", imported.append)
    plugin.warm_up(["airflow", "triggerer"])
    assert imported == []
    plugin.warm_up(["airflow", "scheduler", "--skip-serve-logs"])
    assert imported == list(plugin.NEEDED_BY_TASKS)


def test_the_plugin_costs_the_others_nothing() -> None:
    """Asking for links and warming up elsewhere imports no library."""
    done = subprocess.run([sys.executable, "-c", PROBE], env={"PYTHONPATH": str(INCLUDE)}, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
