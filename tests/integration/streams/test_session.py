"""What needs Spark and no driver: the decoders' arithmetic, the plan of the hot path, the verification of tables."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from streams_lab import Lab
from streams_records import schema_text

from catalog import fenced, open_catalog
from classification import Classifier
from decoders.base import load_decoder
from expressions import NUMBER, amount, amount_fault, micros_of_seconds
from k2.registry.platform import ConfigError
from k2.registry.runtime import Runtime
from registry_schemas import Known
from session import start_session
from tables import ensure_table


@pytest.fixture(scope="module")
def spark(base_stack: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    session = start_session(application="tests", jars=base_stack.jars, heap_mb=512, scratch=tmp_path_factory.mktemp("scratch"), fence=1)
    gateway = session.sparkContext._gateway
    yield session
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    assert gateway.proc.wait(20) == 0


def random_amounts(count: int) -> list[str]:
    """Texts of every shape around the limits: signs, leading and trailing zeros, exponents, long tails."""
    chance = random.Random(7)

    def digits(most: int) -> str:
        return "".join(chance.choice("0012345678990") for _ in range(chance.randint(0, most)))

    texts = []
    for _ in range(count):
        text = chance.choice(["", "", "", "-", "+"]) + digits(chance.choice([3, 32]))
        if chance.random() < 0.8:
            text += "." + digits(chance.choice([4, 9, 20]))
        if chance.random() < 0.4:
            text += chance.choice("eE") + chance.choice(["", "-", "+"]) + str(chance.randint(0, chance.choice([9, 45])))
        texts.append(text)
    return texts


def judge(text: str) -> tuple[str | None, Decimal | None]:
    """The same rule in exact arithmetic."""
    match = re.fullmatch(NUMBER, text)
    if not match or not (match[2] + match[3]):
        return "price_not_a_number", None
    value = Decimal(text)
    if value <= 0:
        return "price_must_be_positive", None
    if value >= Decimal(10) ** 30:
        return "price_too_large", None
    if (value * 10**8) % 1:
        return "price_too_precise", None
    return None, value


def test_amounts_agree_with_exact_arithmetic(spark: SparkSession) -> None:
    """Fault and value of thousands of texts are those of exact decimal arithmetic: nothing is rounded, nothing lost."""
    texts = random_amounts(2000)
    frame = spark.createDataFrame([(text,) for text in texts], "text string")
    rows = frame.select("text", amount_fault("price", f.col("text")).alias("fault"), amount(f.col("text")).cast("string").alias("value")).collect()
    found = [(row.text, row.fault, Decimal(row.value) if row.fault is None else None) for row in rows]
    with localcontext(Context(prec=500)):
        expected = [(text, *judge(text)) for text in texts]
    assert found == expected
    assert len({fault for _, fault, _ in expected}) == 5, "every verdict is met"


def test_times_are_exact_to_the_microsecond(spark: SparkSession) -> None:
    """Seconds as text become the integer that exact arithmetic gives, where a double would be off."""
    chance = random.Random(11)
    texts = [f"{chance.randint(0, 10**11)}.{chance.randint(0, 999_999):06d}" for _ in range(1000)]
    rows = spark.createDataFrame([(text,) for text in texts], "text string").select(micros_of_seconds(f.col("text")).alias("micros")).collect()
    assert [row.micros for row in rows] == [int(text.replace(".", "")) for text in texts]


def test_a_record_is_decoded_once_and_without_python(spark: SparkSession) -> None:
    """The plan evaluates from_avro once per known schema, however often its fields are used, and calls no Python."""
    classifier = Classifier(exchange="binance", reader_schema=schema_text("binance"), decoder=load_decoder("binance"))
    columns = "raw_bytes binary, topic string, partition int, offset bigint, kafka_timestamp timestamp, ingestion_timestamp timestamp"
    bronze = spark.createDataFrame([], columns)
    silver = classifier.silver(classifier.classify(bronze, Known({1: schema_text("binance")}, frozenset())))
    plan = silver._jdf.queryExecution().executedPlan().toString()
    assert plan.count("from_avro(") == 1
    assert "Python" not in plan


def test_a_table_is_created_as_declared_and_refused_when_it_differs(spark: SparkSession, lab: Lab) -> None:
    """A fresh table passes; a property changed behind the registry's back is named with its value and the fix."""
    stream = f"bronze_{lab.name}_binance"
    catalog = open_catalog(spark, lab.runtime, lab.platform, fenced(stream, lab.raise_fence(stream)))
    for table in lab.platform.tables:
        ensure_table(spark, catalog, lab.platform, table)
        assert lab.table(table).properties.items() >= {"write.distribution-mode": "none", "write.parquet.compression-codec": "zstd"}.items()
        assert Path(lab.table(table).location().removeprefix("file:")).name == table
    spark.sql(f"ALTER TABLE k2.market_data.{stream} SET TBLPROPERTIES ('write.distribution-mode' = 'hash')")
    with pytest.raises(ConfigError, match=r"property write.distribution-mode is 'hash', platform.yaml says 'none'.*ALTER TABLE"):
        ensure_table(spark, catalog, lab.platform, stream)
