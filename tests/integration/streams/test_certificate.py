"""The certificate over tables that real drivers wrote, were killed over, and that somebody wrote rows into a second time."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streams_lab import Lab
from streams_records import NOW_MS, binance, encode, kraken, schema_text
from streams_registry import register_schema

from k2.checkpoints.reader import read_tail
from k2.registry.certificate import Certificate, Color
from k2.registry.runtime import Runtime
from k2.state import certificates, streams
from k2.state.database import connect
from k2.watchdog import certifying
from k2.watchdog.certifying import certify_due

pytestmark = pytest.mark.full

EXCHANGE = "kraken"
WRAPPER = str(Path(__file__).parent / "killed.py")


@pytest.fixture(scope="module")
def schema_id(lab: Lab, base_stack: Runtime) -> int:
    return register_schema(base_stack.schema_registry, lab.platform.exchanges[EXCHANGE].subject, schema_text(EXCHANGE))


def trades(schema_id: int, first: int, count: int) -> list[bytes | None]:
    return [encode(schema_id, schema_text(EXCHANGE), kraken(trade_id=first + i)) for i in range(count)]


def certified(lab: Lab, stream: str) -> Certificate:
    """The one certificate that is due, kept in the database as it was made."""
    (written,) = certify_due(lab.runtime)
    assert written.stream == stream and written.certificate is not None, written
    assert certify_due(lab.runtime) == [], "a certificate was written twice"
    with connect(lab.runtime, "reader") as connection:
        assert certificates.changed(certificates.kept(connection, stream)) == []
        assert certificates.latest(connection)[stream]["color"] == written.certificate.color
    return written.certificate


def append_again(lab: Lab, name: str, batch: int, **properties: str) -> None:
    """Append the rows of one batch a second time, past the fence: by a role that needs none."""
    table = lab.table(name)
    snapshot = next(s for s in table.snapshots() if batch_of(s.summary) == batch)
    parent = table.scan(snapshot_id=snapshot.parent_snapshot_id).to_arrow().to_pylist() if snapshot.parent_snapshot_id else []
    rows = [row for row in table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist() if row not in parent]
    fields = [field for field in table.schema().as_arrow() if field.name != "headers"]
    plain = pa.schema([pa.field(f.name, f.type, f.nullable) for f in fields])
    file = lab.runtime.home / f"again-{uuid.uuid4().hex}.parquet"
    pq.write_table(pa.Table.from_pylist([{f.name: row[f.name] for f in fields} for row in rows], schema=plain), file)
    table.add_files([file.as_uri()], snapshot_properties=properties)


def batch_of(summary: Any) -> int | None:
    properties = summary.additional_properties
    found = properties.get("spark.sql.streaming.epochId", properties.get("k2.batch-id"))
    return None if found is None else int(found)


def evidence(certificate: Certificate, name: str) -> str:
    return next(c.evidence for c in certificate.checks if c.name == name)


@pytest.mark.timeout(600)
def test_bronze(lab: Lab, schema_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of a batch, the stream is certified green; the same epoch written once more is red and pages."""
    stream = f"bronze_{lab.name}_{EXCHANGE}"
    lab.produce(EXCHANGE, trades(schema_id, 0, 20), NOW_MS)
    first = lab.start(stream)
    lab.wait_until(lambda: len(lab.rows(stream)) == 20 and lab.is_settled(stream), "the first batch", alive=first, pause=0.3)
    lab.seen(first)
    found = certified(lab, stream)
    assert (found.color, found.first, found.rows, found.fences) == (Color.GREEN, 0, 20, (1,)), found.sentence()

    with lab.commits_blocked(stream) as waits:
        lab.produce(EXCHANGE, trades(schema_id, 100, 20), NOW_MS)
        lab.wait_until(waits, "a commit waits", alive=first)
        first.kill()
        second = lab.start(stream)
    assert lab.last_commit(stream) < lab.last_plan(stream), "the batch was not in flight"
    lab.wait_until(lambda: len(lab.rows(stream)) == 40 and lab.is_settled(stream), "the successor replays it", alive=second, pause=0.3)
    lab.seen(second)
    found = certified(lab, stream)
    assert (found.color, found.last, found.fences) == (Color.GREEN, lab.last_commit(stream), (1, 2)), found.sentence()
    assert "as in the checkpoint" in evidence(found, "as planned")

    query = read_tail(lab.checkpoint(stream)).query_id
    stamps = {"spark.sql.streaming.queryId": str(query), "spark.sql.streaming.epochId": "1", "k2.fence": "2"}
    append_again(lab, stream, 1, **stamps)
    second.kill()
    third = lab.start(stream)
    lab.produce(EXCHANGE, trades(schema_id, 200, 20), NOW_MS)
    lab.wait_until(lambda: len(lab.rows(stream)) > 60 and lab.is_settled(stream), "another batch", alive=third, pause=0.3)
    lab.seen(third)
    found = certified(lab, stream)
    assert found.color is Color.RED
    assert evidence(found, "batches in order").startswith("batch 1 is in the table twice: snapshots ")
    with connect(lab.runtime, "reader") as connection:
        page = connection.execute("SELECT * FROM k2.incidents WHERE key = %s", (f"certificate:{stream}",)).fetchone()
    assert page is not None and page["severity"] == "page" and "batch 1 is in the table twice" in page["detail"]

    monkeypatch.setattr(certifying, "AROUND", 1)
    third.kill()
    fourth = lab.start(stream)
    lab.produce(EXCHANGE, trades(schema_id, 300, 20), NOW_MS)
    lab.wait_until(lambda: len(lab.rows(stream)) > 80 and lab.is_settled(stream), "another batch", alive=fourth, pause=0.3)
    lab.seen(fourth)
    assert certified(lab, stream).color is Color.RED, "what was wrong is older than what is looked at, and nobody has asked for a start"
    fourth.kill()
    with connect(lab.runtime, "control") as connection:
        streams.want(connection, stream, "running", who="test", action="restart", reason="it is understood")
    fifth = lab.start(stream)
    lab.produce(EXCHANGE, trades(schema_id, 400, 20), NOW_MS)
    lab.wait_until(lambda: len(lab.rows(stream)) > 100 and lab.is_settled(stream), "another batch", alive=fifth, pause=0.3)
    lab.seen(fifth)
    assert certified(lab, stream).color is Color.GREEN
    fifth.kill()


@pytest.mark.timeout(600)
def test_silver(lab: Lab, base_stack: Runtime) -> None:
    """Killed between Silver and DLQ, the stream is certified green: both tables have the batch once."""
    exchange = "binance"
    stream = f"silver_{lab.name}_{exchange}"
    schema_id = register_schema(base_stack.schema_registry, lab.platform.exchanges[exchange].subject, schema_text(exchange))
    values = [encode(schema_id, schema_text(exchange), binance(trade_id=i)) for i in range(11)]
    killed = lab.start(stream, WRAPPER, "before-dlq")
    lab.wait_until(lambda: lab.table(f"dlq_{lab.name}") is not None, "the tables exist", alive=killed)
    lab.append_to_bronze(exchange, [*values, None], NOW_MS)
    lab.wait_exit(killed)
    second = lab.start(stream)
    lab.wait_until(lambda: lab.last_commit(stream) == 0, "the successor ends the batch", alive=second, pause=0.3)
    lab.append_to_bronze(exchange, [None, *values], NOW_MS, first_offset=4)
    lab.wait_until(lambda: lab.last_commit(stream) == 1, "another batch", alive=second, pause=0.3)
    lab.seen(second)
    found = certified(lab, stream)
    assert (found.color, found.batches, found.rows, found.fences) == (Color.GREEN, 2, 22, (1, 2)), found.sentence()
    assert evidence(found, "dlq is complete") == "2 rows in 2 commits"
    assert evidence(found, "bronze is read") == "1 spans of Bronze"
