"""Slack without Airflow."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2.alerts import direct
from k2.alerts.due import Due
from k2.registry.platform import load_platform

SECRET = "xoxb-very-secret"
INCIDENT = {
    "id": 1,
    "key": "watchers:streams_watch",
    "severity": "page",
    "title": "Nobody watches",
    "detail": "silent",
    "evidence": None,
    "opened_at": datetime.now(UTC),
    "message": None,
}


def runtime(tmp_path: Path, slack_api: str | None = None) -> Any:
    return SimpleNamespace(slack_api=slack_api, secrets=tmp_path, platform=load_platform(), airflow="http://127.0.0.1:8080")


def test_the_token_is_that_of_the_secrets_or_the_stand_ins(tmp_path: Path) -> None:
    """None without either; an empty file is none."""
    assert direct.slack_access(runtime(tmp_path)) is None
    (tmp_path / "slack_token").write_text("\n")
    assert direct.slack_access(runtime(tmp_path)) is None
    (tmp_path / "slack_token").write_text(SECRET + "\n")
    assert direct.slack_access(runtime(tmp_path)) == direct.Access(SECRET, None)
    assert direct.slack_access(runtime(tmp_path, "http://127.0.0.1:1/")) == direct.Access(direct.STAND_IN_TOKEN, "http://127.0.0.1:1/api/")


def test_no_token_is_said_with_the_fix(tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(direct.NotTold, match="no Slack token: put one into .*slack_token"):
        direct.show(runtime(tmp_path), INCIDENT, Due.OPENED, loud=frozenset())


def test_the_token_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not by repr, not in the refusal, not in any log, however much is logged."""
    (tmp_path / "slack_token").write_text(SECRET)
    assert SECRET not in repr(direct.slack_access(runtime(tmp_path)))
    monkeypatch.setattr(direct, "STAND_IN_TOKEN", SECRET)
    with caplog.at_level(logging.DEBUG), pytest.raises(direct.NotTold, match="cannot be reached") as refused:
        direct.show(runtime(tmp_path, "http://127.0.0.1:1"), INCIDENT, Due.OPENED, loud=frozenset())
    assert SECRET not in str(refused.value) + caplog.text
    assert refused.value.__cause__ is None
