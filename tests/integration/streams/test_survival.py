"""Drivers killed and frozen at named points of a batch; judged by content: every record exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from streams_lab import Lab, RunningDriver
from streams_records import NOW_MS, binance, binance_cases, encode, kraken, schema_text
from streams_registry import Switch, register_schema

from k2.registry.observed import ExitCode
from k2.registry.runtime import Runtime

EXCHANGE = "kraken"
WRAPPER = str(Path(__file__).parent / "killed.py")


@pytest.fixture(scope="module")
def schema_id(lab: Lab, base_stack: Runtime) -> int:
    return register_schema(base_stack.schema_registry, lab.platform.exchanges[EXCHANGE].subject, schema_text(EXCHANGE))


def trades(schema_id: int, first: int, count: int) -> list[bytes | None]:
    return [encode(schema_id, schema_text(EXCHANGE), kraken(trade_id=first + i)) for i in range(count)]


def bronze_positions(lab: Lab, table: str) -> list[tuple[int, int]]:
    return sorted((row["partition"], row["offset"]) for row in lab.rows(table))


def kafka_positions(lab: Lab) -> list[tuple[int, int]]:
    return [record[:2] for record in lab.records(EXCHANGE)]


@pytest.mark.timeout(900)
def test_bronze(lab: Lab, schema_id: int) -> None:
    """Bronze killed before its commit and between commit and commit log, then frozen: Kafka's records, each once."""
    stream = f"bronze_{lab.name}_{EXCHANGE}"
    first = lab.start(stream)
    lab.wait_until(lambda: lab.table(stream) is not None, "the table exists", alive=first)

    # Killed with its commit waiting in PostgreSQL. The server goes on with it when the row is free again, and refuses.
    with lab.commits_blocked(stream) as waits:
        lab.produce(EXCHANGE, trades(schema_id, 0, 20), NOW_MS)
        lab.wait_until(waits, "a commit waits", alive=first)
        first.kill()
        second = lab.start(stream)
    assert lab.last_commit(stream) < lab.last_plan(stream)
    lab.wait_until(lambda: bronze_positions(lab, stream) == kafka_positions(lab), "the successor replays the batch", alive=second, pause=0.5)
    # A query that starts before the first record commits an empty batch first.
    assert [s["added-records"] for s in lab.summaries(stream) if "added-records" in s] == ["20"]

    # Killed when the commit was in the table and not yet in the commit log.
    one = trades(schema_id, 100, 1)  # which no trigger can take a part of
    while not killed_after_commit(lab, second, lambda: lab.produce(EXCHANGE, one, NOW_MS)):
        pass
    snapshots = len(lab.summaries(stream))
    third = lab.start(stream)
    lab.wait_until(lambda: lab.is_settled(stream), "the batch is in the commit log", alive=third)
    assert len(lab.summaries(stream)) == snapshots, "the batch was appended again"
    assert bronze_positions(lab, stream) == kafka_positions(lab)

    # Frozen with a batch planned and its files not committed; the successor commits the batch.
    with lab.commits_blocked(stream) as waits:
        lab.produce(EXCHANGE, trades(schema_id, 5000, 20), NOW_MS)
        lab.wait_until(waits, "a commit waits", alive=third)
        third.signal(signal.SIGSTOP)
        fourth = lab.start(stream)
    lab.wait_until(lambda: bronze_positions(lab, stream) == kafka_positions(lab), "the successor commits", alive=fourth, pause=0.5)
    third.signal(signal.SIGCONT)
    assert lab.wait_exit(third, 60) == ExitCode.FENCED, third.log.read_text()[-3000:]
    assert third.exit_record()["class"] == "fenced"
    assert "k2 fence:" in third.exit_record()["message"]

    lab.produce(EXCHANGE, trades(schema_id, 9000, 20), NOW_MS)
    lab.wait_until(lambda: bronze_positions(lab, stream) == kafka_positions(lab), "the successor goes on", alive=fourth, pause=0.5)
    assert {int(s["k2.fence"]) for s in lab.summaries(stream)} == {2, 4}
    folder = Path(lab.table(stream).location().removeprefix("file:")) / "data"
    tasks = [int(file.name.split("-")[1]) for file in folder.rglob("*.parquet")]
    assert {task // 1_000_000_000 for task in tasks} == {1, 2, 3, 4}, "two drivers could write one file"
    fourth.kill()


@pytest.mark.full
def test_a_topic_that_is_gone(lab: Lab) -> None:
    """It is not the query's fault: Kafka's client calls it unknown, as it does while a broker starts."""
    stream = f"bronze_{lab.name}_{EXCHANGE}"
    driver = lab.start(stream)
    lab.wait_until(lambda: lab.table(stream) is not None, "the table exists", alive=driver)
    topic = lab.platform.exchanges[EXCHANGE].topic
    lab.kafka.delete_topics([topic])[topic].result()
    assert lab.wait_exit(driver, 90) == ExitCode.DEPENDENCY, driver.log.read_text()[-3000:]
    assert (driver.exit_record()["class"], driver.exit_record()["failure"]["dependency"]) == ("dependency", "kafka")


def killed_after_commit(lab: Lab, driver: RunningDriver, produce: Callable[[], None]) -> bool:
    """Freeze the driver as soon as PostgreSQL reports its commit; kill it if the commit log does not have the batch yet."""
    with lab.admin() as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION public.tell_commit() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_notify('commits', NEW.table_name); RETURN NEW; END $$"
        )
        connection.execute("CREATE OR REPLACE TRIGGER tell_commit AFTER UPDATE ON iceberg_tables FOR EACH ROW EXECUTE FUNCTION public.tell_commit()")
        connection.execute("LISTEN commits")
        jvm = driver.jvm
        try:
            produce()
            for notice in connection.notifies(timeout=60):
                if notice.payload == driver.stream:
                    os.kill(jvm, signal.SIGSTOP)
                    break
            else:
                raise AssertionError("no commit within 60 s")
        finally:
            connection.execute("DROP TRIGGER tell_commit ON iceberg_tables")
    if lab.last_commit(driver.stream) < lab.last_plan(driver.stream):
        driver.kill()
        return True
    os.kill(jvm, signal.SIGCONT)
    lab.wait_until(lambda: lab.is_settled(driver.stream), "the batch ends", alive=driver)
    return False


@pytest.mark.timeout(900)
def test_silver(lab: Lab, registry: Switch, base_stack: Runtime) -> None:
    """Silver killed before its write, between Silver and DLQ, and before the commit log, then frozen: each row of Bronze once."""
    exchange, unknown_id, foreign_id = "binance", 987_654, 987_655
    stream, dlq = f"silver_{lab.name}_{exchange}", f"dlq_{lab.name}"
    registry.also[f"/schemas/ids/{foreign_id}"] = schema_text("kraken")
    schema_id = register_schema(base_stack.schema_registry, lab.platform.exchanges[exchange].subject, schema_text(exchange))
    cases = binance_cases(schema_id, unknown_id, foreign_id)
    good = sum(case.reason is None for case in cases)

    killed = lab.start(stream, WRAPPER, "before-silver")
    lab.wait_until(lambda: lab.table(dlq) is not None and lab.table(stream) is not None, "the tables exist", alive=killed)
    lab.append_to_bronze(exchange, [case.value for case in cases], NOW_MS)
    assert lab.wait_exit(killed) == -signal.SIGKILL
    assert (lab.rows(stream), lab.rows(dlq)) == ([], [])

    killed = lab.start(stream, WRAPPER, "before-dlq")
    assert lab.wait_exit(killed) == -signal.SIGKILL
    assert (len(lab.rows(stream)), lab.rows(dlq)) == (good, [])

    # The unknown id becomes known between the two writes of one batch: its record was not in Silver, so the DLQ must have it.
    registry.also[f"/schemas/ids/{unknown_id}"] = schema_text(exchange)
    killed = lab.start(stream, WRAPPER, "after-dlq")
    assert lab.wait_exit(killed) == -signal.SIGKILL
    assert (len(lab.rows(stream)), len(lab.rows(dlq))) == (good, len(cases) - good)
    assert lab.last_commit(stream) == -1

    frozen = lab.start(stream)
    lab.wait_until(lambda: lab.last_commit(stream) == 0, "the batch is in the commit log", alive=frozen)
    assert (len(lab.summaries(stream)), len(lab.summaries(dlq))) == (1, 1), "a table was written again"
    bronze = bronze_positions(lab, f"bronze_{lab.name}_{exchange}")
    assert lab.positions(stream, dlq) == bronze
    reasons = {(row["kafka_partition"], row["kafka_offset"]): row["error_reason"] for row in lab.rows(dlq)}
    assert "schema_unknown" in reasons.values()

    with lab.commits_blocked(stream) as waits:
        more = [encode(schema_id, schema_text(exchange), binance(trade_id=50 + i)) for i in range(9)]
        lab.append_to_bronze(exchange, [*more, None], NOW_MS, first_offset=1000)
        lab.wait_until(waits, "a commit waits", alive=frozen)
        frozen.signal(signal.SIGSTOP)
        successor = lab.start(stream)
    bronze = bronze_positions(lab, f"bronze_{lab.name}_{exchange}")
    lab.wait_until(lambda: lab.positions(stream, dlq) == bronze, "the successor commits", alive=successor, pause=0.5)
    frozen.signal(signal.SIGCONT)
    assert lab.wait_exit(frozen, 60) == ExitCode.FENCED, frozen.log.read_text()[-3000:]
    assert frozen.exit_record()["class"] == "fenced"
    lab.wait_until(lambda: lab.last_commit(stream) == 1, "the successor ends the batch", alive=successor)
    assert lab.positions(stream, dlq) == bronze
    assert [int(s["k2.batch-id"]) for s in lab.summaries(stream)] == [0, 1]
    assert [int(s["k2.fence"]) for s in lab.summaries(stream)] == [2, 5]
    successor.process.send_signal(signal.SIGTERM)
    assert lab.wait_exit(successor, 60) == ExitCode.STOPPED


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_stop_says_whether_it_drained(lab: Lab, schema_id: int, base_stack: Runtime) -> None:
    """Asked to stop, a driver whose batch commits leaves with 0, and one whose batch is blocked leaves in time with a code and a word of its own."""
    lab_file = yaml.safe_load(lab.platform_file.read_text())
    lab_file["restart"]["drain_timeout_seconds"] = 5
    lab.platform_file.write_text(yaml.safe_dump(lab_file))
    stream = f"bronze_{lab.name}_binance"
    before = len(lab.rows(stream)) if lab.table(stream) is not None else 0
    first = lab.start(stream)
    lab.produce("binance", [b"1", b"2", b"3"], NOW_MS)
    lab.wait_until(lambda: lab.is_settled(stream), "a batch is committed", alive=first)
    with lab.commits_blocked(stream) as waits:
        lab.produce("binance", [b"4", b"5"], NOW_MS)
        lab.wait_until(waits, "a commit waits", alive=first)
        first.process.send_signal(signal.SIGTERM)
        assert lab.wait_exit(first, 20) == ExitCode.CUT_SHORT, first.log.read_text()[-3000:]
    assert f"stopped before batch {lab.last_plan(stream)} was committed" in first.exit_record()["message"]
    second = lab.start(stream)
    lab.wait_until(lambda: len(lab.rows(stream)) == before + 5 and lab.is_settled(stream), "the successor replays the batch", alive=second, pause=0.5)
    second.process.send_signal(signal.SIGTERM)
    assert lab.wait_exit(second, 20) == ExitCode.STOPPED
    assert second.exit_record()["message"].startswith("drained")


def test_a_wrong_argument_is_a_configuration_error(lab: Lab) -> None:
    """A stream that is not declared, and one of the other type, end with 78 before Spark starts, and the message says why."""
    for script, stream, text in (("bronze.py", "nobody", "is not declared"), ("silver.py", f"bronze_{lab.name}_kraken", "start it with bronze.py")):
        command = [sys.executable, str(lab.runtime.tree / "spark_jobs" / script), "--stream", stream, "--fence", "1"]
        environment = {
            **os.environ,
            "K2_RUNTIME": str(lab.runtime_file),
            "PYTHONPATH": str(lab.runtime.tree / "include"),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == ExitCode.CONFIG
        assert text in done.stderr
