"""Bronze: every record of one exchange's topic, as Kafka holds it, appended to one Iceberg table.

Run by the host agent as `bronze.py --stream NAME --fence N`.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as f
from pyspark.sql.streaming import StreamingQuery

from driver import Driver, main
from k2.registry.platform import Layer
from tables import LAYOUTS, ensure_table


def start(driver: Driver) -> StreamingQuery:
    """Start the stream's query. Iceberg's own sink skips a batch that it has already committed."""
    table = driver.spec.writes[0]
    ensure_table(driver.spark, driver.catalog, driver.platform, table)
    return (
        records(driver)
        .writeStream.format("iceberg")
        .queryName(driver.stream)
        .outputMode("append")
        .trigger(processingTime=f"{driver.spec.trigger_seconds} seconds")
        .option("checkpointLocation", driver.checkpoint.as_uri())
        .option("fanout-enabled", "true")
        .option("check-nullability", "false")  # Spark calls all of Kafka's columns nullable; only value, key and headers are
        .option("snapshot-property.k2.fence", str(driver.fence))
        .toTable(driver.table(table))
    )


def records(driver: Driver) -> DataFrame:
    """What the stream reads, in the columns of its table."""
    read = (
        driver.spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", driver.runtime.kafka_for(driver.stream))
        .option("subscribe", driver.platform.exchanges[driver.spec.exchange].topic)
        .option("startingOffsets", "earliest")
        # Only a person lets a driver go on where Kafka no longer holds the next offset: it then begins at the oldest one.
        .option("failOnDataLoss", str(not driver.runtime.accepted_loss(driver.stream, driver.fence).is_file()).lower())
        .option("includeHeaders", "true")
        .option("maxOffsetsPerTrigger", driver.spec.max_rows_per_trigger)
        .load()
    )
    # Spark records a batch's time with its plan: a replay gets the same timestamps.
    return read.select(
        f.col("value").alias("raw_bytes"),
        "topic",
        "partition",
        "offset",
        f.col("timestamp").alias("kafka_timestamp"),
        f.current_timestamp().alias("ingestion_timestamp"),
        f.current_date().alias("ingestion_date"),
        f.col("key").alias("kafka_key"),
        "headers",
    ).select(*LAYOUTS[Layer.BRONZE].names)


if __name__ == "__main__":
    main("bronze", start)
