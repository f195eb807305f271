"""What Airflow's database must hold, and when nothing has to be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2.airflow import setup
from k2.airflow.dags import Pool
from k2.registry.runtime import Runtime

from ...stacks import absent


def runtime(home: Path, slack_api: str | None) -> Runtime:
    (home / "secrets").mkdir(exist_ok=True)
    (home / "secrets" / "postgres_airflow").write_text("pw")
    return absent(home, slack_api=slack_api)


@pytest.mark.parametrize("root", ["http://127.0.0.1:9", "http://127.0.0.1:9/"])
def test_stand_in_needs_no_secret(tmp_path: Path, root: str) -> None:
    """The connection points at the stand-in's API root, whose trailing slash the client needs."""
    (connection,) = setup.desired(runtime(tmp_path, root)).connections
    assert (connection.conn_id, connection.extra["base_url"]) == ("k2_slack", "http://127.0.0.1:9/api/")


def test_real_slack_takes_the_token_from_its_file(tmp_path: Path) -> None:
    """With a token there is a connection to Slack itself; without one there is none."""
    where = runtime(tmp_path, None)
    assert setup.desired(where).connections == ()
    (where.secrets / "slack_token").write_text("xoxb-real\n")
    (connection,) = setup.desired(where).connections
    assert connection.token == "xoxb-real" and "base_url" not in connection.extra
    assert "xoxb-real" not in setup.desired(where).digest()


def test_every_pool_of_the_dags_is_made() -> None:
    """A task in a pool that does not exist never starts."""
    assert set(Pool) == set(setup.POOLS)


@pytest.mark.parametrize("stamp", [None, "{", json.dumps({"digest": "another", "revision": "r"})])
def test_any_doubt_means_work(tmp_path: Path, stamp: str | None) -> None:
    """No stamp, half a stamp or another one: the set-up runs, without asking the database."""
    where = runtime(tmp_path, "http://127.0.0.1:9")
    file = tmp_path / "stamp"
    if stamp is not None:
        file.write_text(stamp)
    assert not setup.is_done(where, setup.desired(where), file)
