"""A record that makes Silver's query fail: named, skipped on a person's word, everything else decoded."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from streams_lab import Lab
from streams_records import NOW_MS, encode, kraken, schema_text
from streams_registry import register_schema

from k2.registry.observed import ExitCode, Failure
from k2.registry.runtime import Runtime
from k2.state import skips
from k2.state.database import connect

EXCHANGE = "kraken"
WRAPPER = str(Path(__file__).parent / "poisoned.py")
KILLED = str(Path(__file__).parent / "killed.py")


@pytest.mark.full
@pytest.mark.timeout(600)
def test_poison(lab: Lab, base_stack: Runtime) -> None:
    """The first failure names the batch, the second its two records; skipped, they are in the DLQ and every other row is in Silver, each once."""
    stream, bronze, dlq = f"silver_{lab.name}_{EXCHANGE}", f"bronze_{lab.name}_{EXCHANGE}", f"dlq_{lab.name}"
    schema, subject = schema_text(EXCHANGE), lab.platform.exchanges[EXCHANGE].subject
    schema_id = register_schema(base_stack.schema_registry, subject, schema)
    poison = {41, 42, 77}
    values = [encode(schema_id, schema, kraken(trade_id=i, pair="POISON/USD" if i in poison else "XBT/USD")) for i in range(300)]

    first = lab.start(stream, WRAPPER)
    lab.wait_until(lambda: lab.table(dlq) is not None and lab.table(stream) is not None, "the tables exist", alive=first)
    lab.append_to_bronze(EXCHANGE, values, NOW_MS)
    assert lab.wait_exit(first, 120) == ExitCode.QUERY_FAILED, first.log.read_text()[-3000:]
    failure = first.exit_record()["failure"]
    topic = lab.platform.exchanges[EXCHANGE].topic
    batch = failure["batch"]
    assert (batch, failure["narrowed"], failure["records"]) == (lab.last_plan(stream), False, {topic: {str(p): [[0, 99]] for p in range(3)}})

    second = lab.start(stream, WRAPPER)
    assert lab.wait_exit(second, 180) == ExitCode.QUERY_FAILED, second.log.read_text()[-3000:]
    again = Failure(**second.exit_record()["failure"])
    assert (again.fingerprint, again.batch, again.narrowed) == (failure["fingerprint"], batch, True)
    assert again.fingerprint.startswith("SparkArithmeticException-")
    # Records are produced in turn over three partitions.
    assert again.records == {topic: {"0": [[14, 14]], "2": [[13, 13], [25, 25]]}}
    assert (lab.rows(stream), lab.rows(dlq)) == ([], [])

    with connect(lab.runtime, "control") as connection:
        skip = skips.add(connection, stream, again, who="ann", reason="nobody trades it")
    third = lab.start(stream, WRAPPER)
    lab.wait_until(lambda: lab.last_commit(stream) == batch, "the batch is committed", alive=third)
    assert {
        (row["kafka_partition"], row["kafka_offset"], row["error_reason"], row["error_type"], row["raw_record"], row["schema_id"]) for row in lab.rows(dlq)
    } == {(i % 3, i // 3, "poison_skipped", "poison", values[i], schema_id) for i in poison}
    assert len(lab.rows(stream)) == 297
    both = sorted((row["partition"], row["offset"]) for row in lab.rows(bronze))
    assert lab.positions(stream, dlq) == both
    summary = lab.summaries(stream)[-1]
    assert (summary["k2.skips"], summary["k2.rows-read"], summary["k2.rows-silver"], summary["k2.rows-dlq"]) == (str(skip), "300", "297", "3")

    # A replay of the batch by a driver whose decoder is mended leaves out the same.
    third.kill()
    (lab.checkpoint(stream) / "commits" / str(batch)).unlink()
    (lab.checkpoint(stream) / "commits" / f".{batch}.crc").unlink(missing_ok=True)
    fourth = lab.start(stream)
    lab.wait_until(lambda: lab.last_commit(stream) == batch, "the batch is replayed", alive=fourth)
    assert (len(lab.rows(stream)), len(lab.rows(dlq)), len(lab.summaries(dlq))) == (297, 3, 1)
    more = [encode(schema_id, schema, kraken(trade_id=1000 + i)) for i in range(9)]
    lab.append_to_bronze(EXCHANGE, more, NOW_MS, first_offset=100)
    lab.wait_until(lambda: lab.last_commit(stream) > batch, "it goes on", alive=fourth)
    assert lab.positions(stream, dlq) == sorted((row["partition"], row["offset"]) for row in lab.rows(bronze))
    fourth.process.send_signal(signal.SIGTERM)
    assert lab.wait_exit(fourth, 60) == ExitCode.STOPPED
