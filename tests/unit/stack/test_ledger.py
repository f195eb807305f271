"""What ./k2 ledger prints."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from k2.ledger import Account
from k2.registry.observed import Outage
from k2.registry.platform import load_platform
from k2.stack import cli
from k2.stack.commands import ledger
from k2.supervision.budget import budget
from k2.supervision.ledger import entries, summarize

NOW = datetime(2026, 1, 29, 3, 0, tzinfo=UTC)
SLO = load_platform().slo


def account(outages: list[Outage], launches: list[dict[str, Any]]) -> Account:
    found = entries(outages, launches)
    streams = ("bronze_binance", "silver_binance")
    of = {name: [e for e in found if e.outage.stream == name] for name in streams}
    return Account(
        NOW,
        28.0,
        SLO,
        found,
        {name: summarize(name, of[name], timedelta(days=2)) for name in streams},
        {name: budget(SLO, [e.outage for e in of[name]], NOW) for name in streams},
    )


def printed(found: Account) -> str:
    console = Console(width=220)
    with console.capture() as capture:
        console.print(ledger.render(found))
    return capture.get()


def test_a_ledger_without_outages_says_so() -> None:
    """In words, with the whole budget left and no figure for what was never measured."""
    said = printed(account([], []))
    assert "No outage of any stream in the last 28 days." in said
    assert "bronze_binance  0" in said and "201.6" in said and "None" not in said


def test_each_step_has_its_seconds() -> None:
    """An outage that is over, and one that is open."""
    at = NOW - timedelta(hours=1)
    done = Outage(
        "bronze_binance", "DEAD", "-", 4, at - timedelta(seconds=2), at, at + timedelta(seconds=4), "commit", 5, at + timedelta(seconds=9), at, "caught_up"
    )
    hung = Outage("silver_binance", "HUNG_SOURCE", "-", 7, NOW - timedelta(minutes=15), NOW - timedelta(minutes=14))
    launch = {"stream": "bronze_binance", "fence": 5, "decided_at": at, "intent_at": at, "launched_at": at + timedelta(seconds=1), "how": "spare"}
    found = account([done, hung], [launch])
    lines = printed(found).splitlines()
    assert lines[1].split() == [
        "01-29",
        "02:00:00",
        "bronze_binance",
        "DEAD",
        "caught",
        "up",
        "2.0",
        "0.0",
        "0.0",
        "1.0",
        "3.0",
        "5.0",
        "6.0",
        "spare",
        "4",
        "5",
    ]
    assert lines[2].split() == ["01-29", "02:46:00", "silver_binance", "HUNG_SOURCE", "open", "60.0", "-", "-", "-", "-", "-", "-", "-", "7"]
    assert "1, 1 open" in printed(found) and "6 times as fast" in printed(found)
    document = json.loads(json.dumps(found.as_dict()))
    assert document["outages"][0]["seconds"]["detected"] == 2.0 and document["outages"][1]["state"] == "open"
    assert document["streams"]["bronze_binance"]["to_recovery_p50"] == 4.0
    assert document["streams"]["silver_binance"]["budget"]["used_seconds"] == 900.0


def test_a_platform_that_was_never_started_has_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, and the command to type; a wrong number of days is refused too."""
    monkeypatch.setenv("K2_HOME", str(tmp_path / "home"))
    assert cli.main(["ledger"]) == 2
    assert "./k2 up" in capsys.readouterr().err
    with pytest.raises(argparse.ArgumentTypeError, match="try 7"):
        ledger._days("0")
