"""The rival of `./k2 bench watch`: the same work done the obvious way. `K2_RUNTIME=... python -m k2.bench.plain_watch`.

One loop over the streams every period: ask the driver with httpx, list the checkpoint's folders and read its last files,
ask where the table is and read its metadata, ask what is wanted, judge, write the verdict down. The driver list is asked
once a round. A kept HTTP client and a kept SQL connection; nothing is remembered between rounds, nothing is done at once.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlparse

import httpx
import psycopg
from psycopg.rows import dict_row
from pydantic import TypeAdapter

from k2.launchers.client import AgentClient
from k2.probes import iceberg
from k2.registry.observed import Checkpoint, Driver, Observation, QueryStatus, Reading
from k2.registry.runtime import Runtime, load_runtime
from k2.state import streams, verdicts
from k2.supervision.judge import judge

STATUS = TypeAdapter(QueryStatus)


def tail(checkpoint: Path) -> Checkpoint:
    """The last batches, by listing."""
    commits = [int(n) for n in os.listdir(checkpoint / "commits") if n.isdigit()]  # noqa: PTH208 - the obvious way
    offsets = [int(n) for n in os.listdir(checkpoint / "offsets") if n.isdigit()]  # noqa: PTH208
    commit, offset = checkpoint / "commits" / str(max(commits)), checkpoint / "offsets" / str(max(offsets))
    committed = json.loads((checkpoint / "offsets" / commit.name).read_text().splitlines()[2])
    query = json.loads((checkpoint / "metadata").read_text())["id"]
    written = [datetime.fromtimestamp(file.stat().st_mtime, UTC) for file in (commit, offset)]
    return Checkpoint(query, max(offsets), max(commits), written[0], committed, written[1])


def watch(runtime: Runtime, http: httpx.Client, connection: psycopg.Connection[dict[str, object]], name: str, driver: Driver, asked: datetime) -> None:
    """One stream, from its wish to its verdict."""
    at = datetime.now(UTC)
    wanted = streams.wanted(connection, name)
    status = STATUS.validate_json(http.get(str(driver.status_url)).raise_for_status().content) if driver.status_url else None
    checkpoint = tail(runtime.checkpoint(name))
    row = connection.execute("SELECT metadata_location FROM iceberg_tables WHERE table_name = %s", (runtime.platform.streams[name].reads,)).fetchone()
    assert row is not None
    branch = iceberg.main_branch(Path(urlparse(str(row["metadata_location"])).path).read_bytes())
    head = iceberg.head(branch, checkpoint.committed, at)
    said = Reading(at, status) if status else Reading[QueryStatus](at, error="no driver runs")
    seen = Observation(name, at, Reading(asked, wanted), Reading(asked, driver), said, Reading(at, checkpoint), Reading(at, head))
    decision = judge(runtime.platform.streams[name], seen, runtime.platform.restart, datetime.now(UTC))
    verdicts.record(connection, [(decision, verdicts.OBSERVATION.dump_json(seen))], at)


def main() -> None:
    runtime = load_runtime()
    period = next(iter(runtime.platform.streams.values())).trigger_seconds
    connection = psycopg.connect(**runtime.conninfo("control"), row_factory=dict_row, autocommit=True)  # type: ignore[arg-type]
    with AgentClient(runtime) as agent, httpx.Client(trust_env=False, verify=False) as http:  # noqa: S501 - plain HTTP on the loopback
        while True:
            begun = time.monotonic()
            asked, drivers = datetime.now(UTC), agent.drivers()
            for name in runtime.platform.streams:
                watch(runtime, http, connection, name, drivers[name][0], asked)
            connection.execute("UPDATE k2.watchers SET seen_at = clock_timestamp(), detail = 'a round' WHERE watcher = 'plain'")
            time.sleep(max(0.0, begun + period - time.monotonic()))


if __name__ == "__main__":
    main()
