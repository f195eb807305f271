"""Writes the class-data archive that drivers start from: their classes, parsed and verified once per set of jars.

Run as `archive.py --jars FOLDER` when the jars have changed. It needs neither Kafka nor PostgreSQL: it runs a small
stream through the drivers' own code in a catalog of files, and loads the classes of both clients by name.
A driver that finds no archive, or one that does not fit its Java, starts without it, only slower.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import zipfile
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.streaming import StreamingQuery

from classification import Classifier
from decoders.base import load_decoder
from jvm import java_class, listen
from k2.registry.files import CONFIG_DIR
from k2.registry.platform import Layer
from k2.registry.runtime import class_archive
from registry_schemas import Known
from session import start_session
from status import Board, Listener
from tables import LAYOUTS

CLIENT_JARS = ("kafka-clients-*.jar", "spark-sql-kafka-*.jar", "spark-token-provider-kafka-*.jar", "commons-pool2-*.jar", "postgresql-*.jar")
CLIENT_PACKAGES = ("org/apache/kafka/clients/", "org/apache/kafka/common/", "org/apache/spark/", "org/apache/commons/pool2/", "org/postgresql/")
CATALOG = "scratch"
ROWS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the class-data archive of the drivers' jars.")
    parser.add_argument("--jars", required=True, type=Path, help="folder that holds spark/*.jar")
    jars = parser.parse_args().jars
    target = class_archive(jars)
    partial = target.with_suffix(f".{os.getpid()}.part")
    with tempfile.TemporaryDirectory(prefix="k2-archive-") as folder:
        scratch = Path(folder)
        spark = start_session(application="archive", jars=jars, heap_mb=640, scratch=scratch / "tmp", fence=1, write_archive=partial)
        jvm = spark.sparkContext._gateway.proc  # type: ignore[union-attr]
        exercise(spark, scratch)
        load_clients(spark, jars / "spark")
        spark.stop()
        jvm.stdin.close()
        jvm.wait()
    partial.replace(target)
    print(f"{target}: {target.stat().st_size / 2**20:.0f} MiB")
    os._exit(0)


def exercise(spark: SparkSession, scratch: Path) -> None:
    """A stream of a few records into a Bronze table, and a stream from there into Silver and the DLQ."""
    root = f"spark.sql.catalog.{CATALOG}"
    for key, value in {root: "org.apache.iceberg.spark.SparkCatalog", f"{root}.type": "hadoop", f"{root}.warehouse": (scratch / "warehouse").as_uri()}.items():
        spark.conf.set(key, value)
    listen(spark, Listener(Board("archive", 1), None))
    for layer in Layer:
        layout = LAYOUTS[layer]
        spark.sql(f"CREATE TABLE {CATALOG}.db.{layer} ({layout.ddl}) USING iceberg PARTITIONED BY (days({layout.days_of}))")
    schema = (CONFIG_DIR / "avro" / "binance_raw_trade.avsc").read_text()
    classifier = Classifier(exchange="binance", reader_schema=schema, decoder=load_decoder("binance"))

    def silver(batch: DataFrame, _: int) -> None:
        classified = classifier.classify(batch, Known({1: schema}, frozenset({2}))).persist()
        classified.groupBy("kafka_partition").agg(f.min("kafka_offset"), f.count_if(f.col("fault").isNull()), f.collect_set("schema_id")).collect()
        for frame, layer in ((classifier.silver(classified), Layer.SILVER), (classifier.dlq(classified, "b"), Layer.DLQ)):
            frame.select(*LAYOUTS[layer].names).writeTo(f"{CATALOG}.db.{layer}").option("fanout-enabled", "true").append()
        classified.unpersist()

    value = f.unhex(f.lit("00000000010a7472616465"))  # a frame, and a body that cannot be decoded
    records = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", ROWS).load()
    rows = records.select(
        value.alias("raw_bytes"),
        f.lit("topic").alias("topic"),
        f.lit(0).alias("partition"),
        f.col("value").alias("offset"),
        f.col("timestamp").alias("kafka_timestamp"),
        f.current_timestamp().alias("ingestion_timestamp"),
        f.current_date().alias("ingestion_date"),
        value.alias("kafka_key"),
        f.lit(None).cast("array<struct<key:string,value:binary>>").alias("headers"),
    )
    native = rows.writeStream.format("iceberg").option("checkpointLocation", str(scratch / "bronze")).option("check-nullability", "false")
    _await_first_batch(native.trigger(processingTime="1 second").toTable(f"{CATALOG}.db.bronze"))
    reader = spark.readStream.format("iceberg").option("streaming-max-rows-per-micro-batch", 1000).table(f"{CATALOG}.db.bronze")
    _await_first_batch(reader.writeStream.option("checkpointLocation", str(scratch / "silver")).trigger(processingTime="1 second").foreachBatch(silver).start())


def _await_first_batch(query: StreamingQuery) -> None:
    while query.isActive and query.lastProgress is None:
        query.awaitTermination(0.2)
    if error := query.exception():
        raise error
    query.stop()


def load_clients(spark: SparkSession, folder: Path) -> None:
    """Load the classes of the Kafka and PostgreSQL clients, which the exercise does not reach."""
    loader = java_class(spark, "java.lang.Thread").currentThread().getContextClassLoader()
    names = [
        entry.removesuffix(".class").replace("/", ".")
        for pattern in CLIENT_JARS
        for jar in folder.glob(pattern)
        for entry in zipfile.ZipFile(jar).namelist()
        if entry.endswith(".class") and entry.startswith(CLIENT_PACKAGES)
    ]
    for name in names:
        try:
            loader.loadClass(name)
        except Py4JJavaError:
            continue  # classes for optional libraries cannot be loaded, here or in a driver


if __name__ == "__main__":
    main()
