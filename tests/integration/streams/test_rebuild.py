"""Real streams whose checkpoint is gone after a kill -9, and made again from their tables: every record exactly once, by content."""

from __future__ import annotations

import json
import random
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Producer
from streams_lab import PARTITIONS, Lab, RunningDriver
from streams_records import NOW_MS, binance, encode, kraken, schema_text
from streams_registry import register_schema

from k2.checkpoints.reader import read_offsets, read_tail
from k2.checkpoints.rebuild_files import files_of, write
from k2.checkpoints.rebuild_plan import BronzePlan, Refusal, SilverPlan, plan_bronze, plan_silver, tail_of_silver
from k2.probes.history import read_chain
from k2.probes.kafka import KafkaHeads
from k2.probes.rebuilding import read_bronze, read_source
from k2.registry.observed import ExitCode
from k2.registry.runtime import Runtime

EXCHANGE = "kraken"
WRAPPER = str(Path(__file__).parent / "killed.py")
CHOSEN = random.Random()


@pytest.fixture(scope="module")
def schema_id(lab: Lab, base_stack: Runtime) -> int:
    return register_schema(base_stack.schema_registry, lab.platform.exchanges[EXCHANGE].subject, schema_text(EXCHANGE))


@contextmanager
def produced(lab: Lab, schema_id: int, partitions: list[int]) -> Iterator[list[int]]:
    """Meanwhile records flow into the partitions that the yielded list names; every seventh is a tombstone."""
    stop = threading.Event()

    def run() -> None:
        producer = Producer({"bootstrap.servers": lab.runtime.kafka, "linger.ms": 5})
        topic, number = lab.platform.exchanges[EXCHANGE].topic, 0
        while not stop.wait(0.02):
            for partition in list(partitions):
                for _ in range(CHOSEN.randrange(4)):
                    value = None if number % 7 == 3 else encode(schema_id, schema_text(EXCHANGE), kraken(trade_id=number))
                    producer.produce(topic, value, partition=partition, timestamp=NOW_MS)
                    number += 1
        assert producer.flush(20) == 0

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield partitions
    finally:
        stop.set()
        thread.join()


def lose_checkpoint(lab: Lab, driver: RunningDriver) -> Path:
    """Kill the driver and remove its checkpoint. Returns a copy of what that was."""
    driver.kill()
    path = lab.checkpoint(driver.stream)
    copy = lab.runtime.home / f"lost-{driver.stream}-{driver.fence}"
    shutil.copytree(path, copy)
    shutil.rmtree(path)
    return copy


def location(lab: Lab, table: str) -> str:
    return str(lab.table(table).metadata_location)


def bronze_plan(lab: Lab, stream: str) -> BronzePlan:
    topic = lab.platform.exchanges[EXCHANGE].topic
    heads = KafkaHeads(lab.runtime.kafka)
    bronze = read_bronze(location(lab, stream), [str(p) for p in range(PARTITIONS)])
    timestamps = heads.timestamps({topic: {partition: held.last for partition, held in bronze.partitions.items()}})[topic]
    assert set(timestamps) == set(bronze.partitions)
    plan = plan_bronze(topic, bronze, heads.starts([topic])[topic], heads.ends([topic])[topic], str(uuid.uuid4()), {}, timestamps)
    heads.close()
    assert isinstance(plan, BronzePlan), plan
    print(plan.sentence())
    return plan


def silver_plan(lab: Lab, stream: str, known: str | None) -> SilverPlan:
    silver, dlq = lab.platform.streams[stream].writes
    table, reads = read_chain(location(lab, silver)), lab.platform.streams[stream].reads
    tail = tail_of_silver(table)
    assert not isinstance(tail, Refusal), tail
    plan = plan_silver(table, read_chain(location(lab, dlq)), read_source(location(lab, str(reads)), tail), known)
    assert isinstance(plan, SilverPlan), plan
    print(plan.sentence())
    return plan


def spark_wrote(checkpoint: Path, plan: SilverPlan) -> None:
    """Spark's own files of the batch and the one before it are those that are planned, but for when they were and the number of shuffle partitions."""
    for name, content in files_of(plan).items():
        if name.startswith("offsets"):
            theirs, ours = ([json.loads(line) for line in text.decode().split("\n")[1:]] for text in ((checkpoint / name).read_bytes(), content))
            for about in (theirs[0], ours[0]):
                about["conf"].pop("spark.sql.shuffle.partitions", None)
                about.pop("batchTimestampMs")
            assert ours == theirs
        elif not name.startswith("sources"):
            assert (checkpoint / name).read_bytes() == content


def drained(lab: Lab, driver: RunningDriver) -> None:
    driver.process.send_signal(signal.SIGTERM)
    assert lab.wait_exit(driver, 60) == ExitCode.STOPPED, driver.log.read_text()[-3000:]


@pytest.mark.full
@pytest.mark.timeout(900)
def test_bronze(lab: Lab, schema_id: int) -> None:
    """Its checkpoint is removed while data flows, after a kill at a random moment and after one with a commit on its way; a partition gets its first
    record only then. Kafka's records are in Bronze, each once."""
    stream = f"bronze_{lab.name}_{EXCHANGE}"
    topic = lab.platform.exchanges[EXCHANGE].topic
    queries = []
    with produced(lab, schema_id, [0, 1]) as partitions:
        driver = lab.start(stream)
        for under_way in (False, True):
            lab.wait_until(lambda: lab.last_commit(stream) >= 3, "some batches", alive=driver)
            if under_way:
                with lab.commits_blocked(stream) as waits:
                    lab.wait_until(waits, "a commit waits", alive=driver)
                    copy = lose_checkpoint(lab, driver)
                    fence = lab.raise_fence(stream)  # the server goes on with the commit when the row is free again, and refuses it
            else:
                time.sleep(CHOSEN.random() * 2)
                copy = lose_checkpoint(lab, driver)
                fence = lab.raise_fence(stream)
            plan = bronze_plan(lab, stream)
            lost = read_tail(copy)
            ends = [read_offsets(copy, b)[0][topic] for b in (lost.last_commit_batch, lost.last_offset_batch)]  # type: ignore[index,arg-type]
            assert {b.partition: b.offset for b in plan.begins} in ends, "Bronze stands where the last committed or the last planned batch ended"
            assert (copy / "sources" / "0" / "0").read_bytes().startswith(b'\0v1\n{"' + topic.encode())
            write(plan, lab.checkpoint(stream))
            queries.append(plan.query)
            partitions[:] = [0, 1, 2]
            driver = lab.launch(stream, fence)
        lab.wait_until(lambda: lab.last_commit(stream) >= 3, "some batches", alive=driver)
    records = lab.records(EXCHANGE)
    lab.wait_until(lambda: len(lab.rows(stream)) >= len(records), "all that Kafka has", alive=driver, pause=0.5)
    drained(lab, driver)
    held = sorted(((r["partition"], r["offset"], r["raw_bytes"]) for r in lab.rows(stream)), key=lambda r: r[:2])
    assert held == [(r[0], r[1], r[3]) for r in records]
    assert {partition for partition, _, _ in held} == {0, 1, 2}
    written = [s.get("spark.sql.streaming.queryId") for s in lab.summaries(stream)]
    assert list(dict.fromkeys(written))[1:] == queries


@pytest.mark.full
@pytest.mark.timeout(900)
def test_silver(lab: Lab, base_stack: Runtime) -> None:
    """Its checkpoint is removed after each of four kills, between Silver and the DLQ too: each row of Bronze is in one of them, once."""
    exchange = "binance"
    bronze, stream, dlq = f"bronze_{lab.name}_{exchange}", f"silver_{lab.name}_{exchange}", f"dlq_{lab.name}"
    schema_id = register_schema(base_stack.schema_registry, lab.platform.exchanges[exchange].subject, schema_text(exchange))
    good = encode(schema_id, schema_text(exchange), binance())
    driver = lab.start(bronze)
    for count in range(1, 10):
        # Two files of three fill a batch of Silver, so that it ends within a snapshot of Bronze.
        lab.produce(exchange, [None if number % 10 == 4 else good for number in range(30 * PARTITIONS)], NOW_MS)
        lab.wait_until(lambda count=count: len(lab.rows(bronze)) == 30 * PARTITIONS * count, "a batch of Bronze", alive=driver)
    drained(lab, driver)
    declared = yaml.safe_load(lab.platform_file.read_text())
    declared["streams"][stream]["max_rows_per_trigger"] = 40
    lab.platform_file.write_text(yaml.safe_dump(declared))

    query, owed = None, []
    for point in (None, None, "before-dlq", "after-dlq"):
        begun = lab.last_commit(stream)
        driver = lab.start(stream, *((WRAPPER, point) if point else ()))
        if point is None:
            lab.wait_until(lambda begun=begun: lab.last_commit(stream) >= begun + 3, "some batches", alive=driver)
            time.sleep(CHOSEN.random())
        else:
            assert lab.wait_exit(driver) == -signal.SIGKILL
        copy = lose_checkpoint(lab, driver)
        lost = read_tail(copy)
        query = query or lost.query_id
        plan = silver_plan(lab, stream, query)
        owed.append(plan.owed)
        assert plan.query == query and lost.last_offset_batch - 1 <= plan.batch <= lost.last_offset_batch  # type: ignore[operator]
        for batch, place in ((plan.batch - 1, plan.begin), (plan.batch, plan.end)):
            assert read_offsets(copy, batch) == [json.loads(place.as_json())]
        if len(owed) == 1:
            spark_wrote(copy, plan)
        write(plan, lab.checkpoint(stream))
    assert owed[2] > 0 and owed[3] == 0
    driver = lab.start(stream)
    held = sorted((row["partition"], row["offset"]) for row in lab.rows(bronze))
    lab.wait_until(lambda: len(lab.positions(stream, dlq)) >= len(held), "all of Bronze", alive=driver, pause=0.5)
    drained(lab, driver)
    assert lab.positions(stream, dlq) == held
    batches = [int(s["k2.batch-id"]) for s in lab.summaries(stream)]
    assert batches == list(range(len(batches))) and {s["k2.query-id"] for s in lab.summaries(stream)} == {query}
