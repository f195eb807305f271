"""Silver: one exchange's Bronze table decoded and judged, each row appended to the Silver table or to the DLQ.

Run by the host agent as `silver.py --stream NAME --fence N`.
"""

from __future__ import annotations

import functools

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession
from pyspark.sql.streaming import StreamingQuery

from classification import Classifier
from decoders.base import load_decoder
from driver import Driver, main
from jvm import java_class
from k2.registry.platform import ConfigError
from poison import to_skip
from registry_schemas import SchemaBook, fetch_schema
from silver_writer import SilverWriter
from tables import ensure_table


def start(driver: Driver) -> StreamingQuery:
    """Start the stream's query."""
    assert driver.spec.reads is not None  # the registry refuses a silver stream without it
    for table in (driver.spec.reads, *driver.spec.writes):
        ensure_table(driver.spark, driver.catalog, driver.platform, table)
    return run(driver, SilverWriter)


def run(driver: Driver, kind: type[SilverWriter]) -> StreamingQuery:
    """Start the stream's query over tables that are there, with a writer of this kind."""
    assert driver.spec.reads is not None
    exchange = driver.platform.exchanges[driver.spec.exchange]
    schema = exchange.avro_schema()
    record_name = functools.partial(avro_record_name, driver.spark)
    expected = record_name(schema)
    if expected is None:
        raise ConfigError(f"include/config/avro/{exchange.schema_file} is no Avro record: correct it")
    writer = kind(
        driver,
        Classifier(exchange=driver.spec.exchange, reader_schema=schema, decoder=load_decoder(exchange.decoder)),
        SchemaBook(driver.runtime.schemas, expected, record_name, functools.partial(fetch_schema, driver.runtime.schema_registry)),
        to_skip(driver),
    )
    # Iceberg's limit is soft: a file is read whole, so a batch may exceed it by less than one file of Bronze.
    bronze = (
        driver.spark.readStream.format("iceberg")
        .option("streaming-max-rows-per-micro-batch", driver.spec.max_rows_per_trigger)
        .table(driver.table(driver.spec.reads))
    )
    return (
        bronze.writeStream.queryName(driver.stream)
        .trigger(processingTime=f"{driver.spec.trigger_seconds} seconds")
        .option("checkpointLocation", driver.checkpoint.as_uri())
        .foreachBatch(writer.write)
        .start()
    )


def avro_record_name(spark: SparkSession, schema: str) -> str | None:
    """The full name of the record that a schema text defines; None when it is no Avro record, as Spark's Avro reads it."""
    try:
        parsed = java_class(spark, "org.apache.avro.Schema$Parser")().parse(schema)
    except Py4JJavaError:
        return None
    return str(parsed.getFullName()) if parsed.getType().getName() == "record" else None


if __name__ == "__main__":
    main("silver", start)
