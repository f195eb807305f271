"""A driver that was frozen, replaced, and thaws an hour later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from k2.processes import ProcessId
from k2.registry.observed import Action, Verdict
from k2.state import database, streams
from k2.supervision import policy

STREAM = "bronze_binance"
TABLE = "bronze_binance_trades"
Watched = Any

ZOMBIE = """
import json, sys
import psycopg
with psycopg.connect(**json.loads(sys.stdin.readline()), autocommit=True) as session:
    print("open", flush=True)
    for location in sys.stdin:
        try:
            changed = session.execute("UPDATE iceberg_tables SET metadata_location = %s WHERE table_name = %s", location.split()).rowcount
            print("committed", changed, flush=True)
        except psycopg.Error as error:
            print(error.sqlstate, error.diag.message_primary, flush=True)
"""
"""A session of the catalog that stays open while its process is frozen, and commits what it is told as JdbcCatalog does."""


def locations(watched: Watched) -> list[str]:
    with database.connect(watched.runtime, "reader") as connection:
        return [row["metadata_location"] for row in connection.execute("SELECT metadata_location FROM iceberg_tables WHERE table_name = %s", (TABLE,))]


def test_a_zombie_that_nobody_knows_thaws_an_hour_later(watched: Watched) -> None:
    """The catalog refuses it for ever, over the session that it had open, and the watchdog leaves the stream alone."""
    watched.up()
    settings = watched.runtime.conninfo("writer") | {"options": f"-c k2.stream={STREAM} -c k2.fence=1"}
    with subprocess.Popen([sys.executable, "-c", ZOMBIE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as zombie:
        assert zombie.stdin is not None and zombie.stdout is not None

        def say(words: str) -> None:
            zombie.stdin.write(words + "\n")
            zombie.stdin.flush()

        say(json.dumps(settings))
        assert zombie.stdout.readline() == "open\n"
        say(f"file:/second {TABLE}")
        assert zombie.stdout.readline() == "committed 1\n", "it holds the stream"
        zombie.send_signal(signal.SIGSTOP)
        say(f"file:/third {TABLE}")
        watched.kill()
        assert watched.watch()[STREAM].fence == 2
        watched.home.wait_until(lambda: watched.home.newest().status_url, "the driver listens")
        watched.commit(STREAM, 1)
        an_hour_passes(watched)
        zombie.send_signal(signal.SIGCONT)
        assert zombie.stdout.readline() == f"K2F01 k2 fence: stream {STREAM} holds epoch 1, current is 2\n"
        zombie.stdin.close()
    assert locations(watched) == ["file:/second"]
    assert watched.look()[STREAM].verdict is Verdict.IDLE and watched.watch() == {}


def test_a_zombie_that_the_agent_knows_is_ended_when_it_thaws(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen so that nothing but its record told of it, and back an hour later beside its successor: killed, and told."""
    monkeypatch.setattr(policy, "backoff", lambda *_: timedelta(0))
    watched.up()
    old = watched.pid()
    os.kill(old, signal.SIGSTOP)
    watched.home.client.launch(STREAM, _raise(watched))
    watched.home.wait_until(lambda: watched.home.newest().status_url, "the successor listens")
    watched.commit(STREAM, 1)
    an_hour_passes(watched)
    os.kill(old, signal.SIGCONT)
    found = watched.look()[STREAM]
    assert (found.verdict, found.action, found.fence) == (Verdict.SPLIT_BRAIN, Action.END_OLDER, 2)
    assert watched.watch()[STREAM].ok and ProcessId.of(old) is None
    assert watched.look()[STREAM].verdict is Verdict.IDLE
    (incident,) = [found for found in watched.incidents() if found["key"] == f"stream:{STREAM}"]
    assert incident["severity"] == "page" and incident["resolved_at"] is not None


def _raise(watched: Watched) -> int:
    with database.connect(watched.runtime, "control") as connection:
        return streams.raise_fence(connection, STREAM, seen=1, generation=1, reason="test", detected_at=None)


def an_hour_passes(watched: Watched) -> None:
    """Everything on record happened an hour earlier."""
    with database.connect(watched.runtime, "admin") as admin:
        hour = "- interval '1 hour'"
        admin.execute(
            f"UPDATE k2.launches SET intent_at = intent_at {hour}, launched_at = launched_at {hour}, ended_at = ended_at {hour}, "
            f"first_commit_at = first_commit_at {hour}, detected_at = detected_at {hour}"
        )
        admin.execute(f"UPDATE k2.verdicts SET since = since {hour}, seen_at = seen_at {hour}")
    for file in watched.runtime.checkpoint(STREAM).rglob("*"):
        earlier = file.stat().st_mtime - 3600
        os.utime(file, (earlier, earlier))
