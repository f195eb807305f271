"""Four drivers and a known set of records: each lands where it should, with what it should, and nowhere else."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
from streams_lab import Lab, RunningDriver
from streams_records import NOW_MS, Case, binance, binance_cases, encode, evolved_schema_text, kraken_cases, schema_text
from streams_registry import Switch, register_schema

from k2.registry.observed import ExitCode, QueryStatus
from k2.registry.runtime import Runtime

UNKNOWN_ID = 987_654
EPOCH = datetime.fromtimestamp(0, UTC)
IDLE_LIMIT = timedelta(seconds=60)
"""An idle query reports every 10 s."""
EXCHANGES = ("binance", "kraken")


@dataclass(frozen=True)
class KnownSet:
    lab: Lab
    cases: dict[str, list[Case]]
    drivers: dict[str, RunningDriver]
    schema_ids: dict[str, int]

    def stream(self, layer: str, exchange: str) -> str:
        return f"{layer}_{self.lab.name}_{exchange}"

    @property
    def dlq(self) -> str:
        return f"dlq_{self.lab.name}"

    def settled(self, exchange: str) -> int:
        """Rows of Bronze that reached Silver or the DLQ, by the word of Silver's commits."""
        stream = self.stream("silver", exchange)
        return sum(int(s["k2.rows-read"]) for s in self.lab.summaries(stream)) if self.lab.is_settled(stream) else 0


@pytest.fixture(scope="module")
def known(lab: Lab, base_stack: Runtime) -> KnownSet:
    """All drivers run, and all records of the known set are settled."""
    ids = {e: register_schema(base_stack.schema_registry, lab.platform.exchanges[e].subject, schema_text(e)) for e in EXCHANGES}
    cases = {"binance": binance_cases(ids["binance"], UNKNOWN_ID, ids["kraken"]), "kraken": kraken_cases(ids["kraken"], UNKNOWN_ID, ids["binance"])}
    for exchange in EXCHANGES:
        lab.produce(exchange, [case.value for case in cases[exchange]], NOW_MS)
    drivers = {}
    for layer in ("bronze", "silver"):  # two at a time, as the machine has two cores
        names = [f"{layer}_{lab.name}_{exchange}" for exchange in EXCHANGES]
        drivers |= {name: lab.start(name) for name in names}
        for name in names:
            lab.wait_until(lambda name=name: lab.last_commit(name) >= 0, f"{name} commits", alive=drivers[name])
    found = KnownSet(lab, cases, drivers, ids)
    for exchange in EXCHANGES:
        lab.wait_until(lambda e=exchange: found.settled(e) == len(cases[e]), f"all records of {exchange} are settled")
    return found


def expected(records: list[tuple[Any, ...]], cases: list[Case]) -> dict[tuple[int, int], Case]:
    """The case at each Kafka position."""
    by_number = {f"key {number}".encode(): case for number, case in enumerate(cases)}
    return {(partition, offset): by_number[key] for partition, offset, key, *_ in records}


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_bronze_holds_every_record_as_kafka_does(known: KnownSet, exchange: str) -> None:
    """Position, key, value, headers and timestamp of every record, tombstones included, exactly once."""
    records = known.lab.records(exchange)
    rows = [
        (
            r["partition"],
            r["offset"],
            r["kafka_key"],
            r["raw_bytes"],
            [(h["key"], h["value"]) for h in r["headers"]],
            round(r["kafka_timestamp"].timestamp() * 1000),
        )
        for r in known.lab.rows(known.stream("bronze", exchange))
    ]
    assert sorted(rows, key=lambda r: r[:2]) == records
    assert len(records) == len(known.cases[exchange])


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_every_record_is_in_silver_or_in_the_dlq_with_its_reason(known: KnownSet, exchange: str) -> None:
    """Good records are in Silver, each other one is in the DLQ with the reason of the first rule it breaks."""
    cases = expected(known.lab.records(exchange), known.cases[exchange])
    silver = known.lab.rows(known.stream("silver", exchange))
    refused = [row for row in known.lab.rows(known.dlq) if row["bronze_source"] == known.stream("bronze", exchange)]
    positions = sorted((row["kafka_partition"], row["kafka_offset"]) for row in silver + refused)
    assert positions == sorted(cases)
    wrong = [
        (cases[(r["kafka_partition"], r["kafka_offset"])].name, r["error_reason"])
        for r in refused
        if cases[(r["kafka_partition"], r["kafka_offset"])].reason != r["error_reason"]
    ]
    wrong += [(cases[(r["kafka_partition"], r["kafka_offset"])].name, "valid") for r in silver if cases[(r["kafka_partition"], r["kafka_offset"])].reason]
    assert wrong == []
    for row in refused:
        assert row["raw_record"] == cases[(row["kafka_partition"], row["kafka_offset"])].value
        assert row["kafka_topic"] == known.lab.platform.exchanges[exchange].topic
        assert row["error_type"]
        assert row["dlq_date"] == row["error_timestamp"].date()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_good_records_have_the_right_content(known: KnownSet, exchange: str) -> None:
    """Identity, amounts, side and times of the good records."""
    cases = expected(known.lab.records(exchange), known.cases[exchange])
    bronze = {(r["partition"], r["offset"]): r for r in known.lab.rows(known.stream("bronze", exchange))}
    rows = known.lab.rows(known.stream("silver", exchange))
    assert len({row["message_id"] for row in rows}) == len(rows)
    for row in rows:
        position = (row["kafka_partition"], row["kafka_offset"])
        case = cases[position]
        for column, value in (case.silver or {}).items():
            got = row[column]
            assert got == (Decimal(value) if isinstance(got, Decimal) else value), f"{case.name}: {column}"
        assert (row["trade_time"] - EPOCH) // timedelta(microseconds=1) == row["timestamp"]
        assert row["ingestion_timestamp"] == (NOW_MS - 1) * 1000 + 7
        assert row["bronze_ingestion_timestamp"] == bronze[position]["ingestion_timestamp"]
        assert row["asset_class"] == "crypto"


def test_trade_ids_tell_repeats_from_other_trades(known: KnownSet) -> None:
    """A trade sent twice has one id; v1 trades that differ in size or place only have their own, with their time in it."""
    ids: dict[str, dict[str, str]] = {}
    for exchange in EXCHANGES:
        cases = expected(known.lab.records(exchange), known.cases[exchange])
        ids[exchange] = {cases[(r["kafka_partition"], r["kafka_offset"])].name: r["trade_id"] for r in known.lab.rows(known.stream("silver", exchange))}
    assert ids["binance"]["a plain trade"] == ids["binance"]["the same trade again"]
    v1 = [identity for name, identity in ids["kraken"].items() if name.startswith("a v1 trade")]
    assert len(set(v1)) == len(v1) == 3
    assert all(identity.startswith(f"KRAKEN-{NOW_MS // 1000 - 2}.321597-") for identity in v1)


def test_snapshots_account_for_every_row(known: KnownSet) -> None:
    """Rows read = Silver + DLQ in every commit, batch ids rise by one, and the Bronze position reached is in it."""
    for exchange in EXCHANGES:
        commits = known.lab.summaries(known.stream("silver", exchange))
        assert [int(c["k2.batch-id"]) for c in commits] == list(range(len(commits)))
        assert len({c["k2.query-id"] for c in commits}) == 1
        for commit in commits:
            assert int(commit["k2.rows-read"]) == int(commit["k2.rows-silver"]) + int(commit["k2.rows-dlq"])
            assert int(commit["added-records"]) == int(commit["k2.rows-silver"])
            assert commit["k2.fence"] == "1"
        assert sum(int(c["k2.rows-read"]) for c in commits) == len(known.cases[exchange])
        bronze = known.lab.table(known.stream("bronze", exchange))
        assert commits[-1]["k2.bronze-snapshot"] in {str(s.snapshot_id) for s in bronze.snapshots()}
        assert all(c["k2.fence"] == "1" and c["spark.sql.streaming.epochId"] for c in known.lab.summaries(known.stream("bronze", exchange)))


def test_status_and_metrics(known: KnownSet) -> None:
    """/status has exactly the fields of QueryStatus, with the query's identity; /metrics exposes the driver's gauges."""
    for name, driver in known.drivers.items():
        status = driver.status()
        assert set(status) == set(QueryStatus.__dataclass_fields__)
        assert (status["stream"], status["fence"], status["phase"], status["waits_for"]) == (name, 1, "running", None)
        assert status["query_id"] == known.lab.summaries(name)[-1].get("k2.query-id", status["query_id"])
        assert status["batch_id"] is not None and status["batch_seconds"] > 0 and status["input_rows"] is not None
        assert datetime.now(UTC) - datetime.fromisoformat(status["last_event_at"]) < IDLE_LIMIT
        metrics = driver.get("/metrics").decode()
        assert f'k2_driver_phase{{phase="running",stream="{name}"}} 1.0' in metrics
        rows = [line for line in metrics.splitlines() if line.startswith("k2_driver_rows_total")]
        assert sum(float(line.split()[-1]) for line in rows) == len(known.cases[name.rsplit("_", 1)[1]])


def test_nothing_listens_beyond_loopback_and_no_password_shows(known: KnownSet) -> None:
    """Every socket of driver and JVM is on loopback; the writer's password is in no argument, environment or log."""
    password = known.lab.runtime.password("writer")
    for driver in known.drivers.values():
        for pid in (driver.process.pid, driver.jvm):
            listening = [c.laddr.ip for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
            assert listening and set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
            for file in ("cmdline", "environ"):
                assert password.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()
        assert password not in driver.log.read_text()


def test_a_new_schema_waits_for_the_registry_and_a_known_one_does_not(known: KnownSet, registry: Switch, base_stack: Runtime) -> None:
    """With the registry away, records of known schemas flow; one of a new schema makes the driver wait and say so."""
    lab, silver = known.lab, known.stream("silver", "binance")
    driver = known.drivers[silver]
    registry.up = False
    lab.produce("binance", [encode(known.schema_ids["binance"], schema_text("binance"), binance(trade_id=900 + i)) for i in range(3)], NOW_MS)
    lab.wait_until(lambda: known.settled("binance") == len(known.cases["binance"]) + 3, "known schemas need no registry", alive=driver)

    evolved = evolved_schema_text("binance")
    new_id = register_schema(base_stack.schema_registry, lab.platform.exchanges["binance"].subject, evolved)
    record = binance(trade_id=4711, price="123.45") | {"venue": "somewhere else"}
    lab.produce("binance", [encode(new_id, evolved, record)], NOW_MS)
    lab.wait_until(lambda: driver.status()["waits_for"] == "schema_registry", "the driver waits for the registry", alive=driver)
    assert driver.status()["phase"] == "waiting"
    commit = lab.last_commit(silver)
    time.sleep(2)
    assert lab.last_commit(silver) == commit
    registry.up = True
    lab.wait_until(lambda: lab.last_commit(silver) > commit, "the batch goes on", alive=driver)
    row = next(row for row in lab.rows(silver) if row["source_sequence"] == 4711)
    assert (row["price"], row["schema_id"], row["symbol"]) == (Decimal("123.45000000"), new_id, "BTCUSDT")
    assert driver.status()["waits_for"] is None
    asked = len(registry.asked)
    lab.produce("binance", [encode(new_id, evolved, record | {"trade_id": 4712})], NOW_MS)
    lab.wait_until(lambda: any(row["source_sequence"] == 4712 for row in lab.rows(silver)), "the schema is known now", alive=driver)
    assert len(registry.asked) == asked
    assert (lab.runtime.schemas / f"{new_id}.avsc").is_file()


def test_the_ways_out(known: KnownSet) -> None:
    """SIGTERM drains and leaves 0; a driver dies with its JVM (71), and a JVM with its driver, within 5 s."""
    lab = known.lab
    drained = [known.drivers[known.stream(layer, "binance")] for layer in ("bronze", "silver")]
    lab.produce("binance", [encode(known.schema_ids["binance"], schema_text("binance"), binance(trade_id=800 + i)) for i in range(50)], NOW_MS)
    for driver in drained:
        os.killpg(driver.process.pid, signal.SIGTERM)  # the whole group, as a terminal or `timeout` does it
    for driver in drained:
        assert lab.wait_exit(driver, 60) == ExitCode.STOPPED, driver.log.read_text()[-2000:]
        record = driver.exit_record()
        assert (record["code"], record["class"]) == (0, "stopped")
        assert "every planned batch is committed" in record["message"]
        assert lab.last_plan(driver.stream) == lab.last_commit(driver.stream)

    bronze, silver = (known.drivers[known.stream(layer, "kraken")] for layer in ("bronze", "silver"))
    os.kill(bronze.jvm, signal.SIGKILL)
    assert lab.wait_exit(bronze, 5) == ExitCode.JVM_DIED
    assert bronze.exit_record()["class"] == "jvm_died"
    jvm = psutil.Process(silver.jvm)
    silver.process.kill()
    silver.process.wait()
    jvm.wait(5)
