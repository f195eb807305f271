"""What the watchdog writes down of outages and of error budgets, over a real database and a real host agent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from k2 import ledger
from k2.registry.observed import Outage
from k2.state import database, outages
from k2.supervision import policy

STREAM = "bronze_binance"
Watched = Any


def account(watched: Watched) -> ledger.Account:
    with database.connect(watched.runtime, "reader") as connection:
        return ledger.read(connection, watched.runtime.platform, datetime.now(UTC))


def test_the_ledger_of_an_outage(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A death, a successor that dies before it commits, one that commits: one outage, with every step; a stop ends the next one."""
    monkeypatch.setattr(policy, "backoff", lambda _, deaths: timedelta(0))
    watched.up()
    assert account(watched).entries == []
    watched.kill()
    watched.watch()
    watched.home.wait_begun(len(watched.names) + 1)
    (entry,) = account(watched).entries
    assert (entry.state, entry.outage.verdict, entry.fences, entry.to_recovery) == ("open", "DEAD", (2,), None)
    watched.kill()
    watched.watch()
    watched.home.wait_begun(len(watched.names) + 2)
    watched.kafka.end = 1
    watched.commit(STREAM, 1)
    watched.look()
    watched.look()
    (entry,) = account(watched).entries
    assert (entry.state, entry.fences, entry.outage.recovered_by, entry.how) == ("caught up", (2, 3), "commit", "cold")
    dead, first, second = watched.ledger()
    assert dead["first_commit_at"] < entry.outage.good_at < dead["ended_at"], "it was seen idle after its last commit"
    assert entry.moments == {
        "detected": first["detected_at"],
        "decided": first["decided_at"],
        "fenced": first["intent_at"],
        "launched": first["launched_at"],
        "recovered": second["first_commit_at"],
        "caught up": entry.outage.caught_up_at,
    }
    *steps, catching_up = entry.steps.values()
    assert entry.down == pytest.approx(sum(steps)) and catching_up > 0
    found = account(watched)
    assert (found.summaries[STREAM].outages, found.summaries[STREAM].to_recovery_p50) == (1, entry.to_recovery)
    assert found.budgets[STREAM].used_seconds == pytest.approx(entry.down)
    watched.kill()
    watched.look()
    watched.want("stopped")
    watched.look()
    last = account(watched).entries[-1]
    assert (last.state, last.fences) == ("stopped", ())


def test_a_budget_that_burns_is_a_ticket_until_it_does_no_more(watched: Watched) -> None:
    """Twenty minutes lost lately open one; once they lie behind, it is resolved by itself."""
    watched.up()
    with database.connect(watched.runtime, "control") as connection:
        now = datetime.now(UTC)
        outages.begin(connection, Outage(STREAM, "DEAD", "test", 1, now - timedelta(minutes=20), now - timedelta(minutes=20)))
        connection.execute("UPDATE k2.outages SET recovered_at = %s, recovered_by = 'commit', recovered_fence = 1", (now,))
    watched.look()
    (incident,) = watched.incidents()
    assert (incident["key"], incident["severity"], incident["resolved_at"]) == (f"budget:{STREAM}", "ticket", None)
    assert "6 times as fast" in incident["detail"] and f"./k2 ledger {STREAM}" in incident["detail"]
    with database.connect(watched.runtime, "control") as connection:
        connection.execute("UPDATE k2.outages SET good_at = good_at - interval '5 hours', recovered_at = recovered_at - interval '5 hours'")
    watched.look()
    (incident,) = watched.incidents()
    assert incident["resolved_at"] is not None
