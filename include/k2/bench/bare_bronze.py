"""The rival of `./k2 bench heal`: Bronze as a plain script for spark-submit, with nothing of this suite in it.

spark-submit bare_bronze.py SETTINGS.json
"""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

settings = json.loads(Path(sys.argv[1]).read_text())
spark = SparkSession.builder.appName("bare bronze").getOrCreate()
for key, value in settings["catalog"].items():
    spark.conf.set(key, value)
spark.sql("CREATE NAMESPACE IF NOT EXISTS bare.db")
spark.sql(
    "CREATE TABLE IF NOT EXISTS bare.db.bronze (raw_bytes BINARY, topic STRING, partition INT, offset BIGINT, kafka_timestamp TIMESTAMP,"
    " ingestion_timestamp TIMESTAMP, ingestion_date DATE, kafka_key BINARY, headers ARRAY<STRUCT<key: STRING, value: BINARY>>)"
    " USING iceberg PARTITIONED BY (days(ingestion_date)) TBLPROPERTIES ('write.distribution-mode' = 'none')"
)
records = (
    spark.readStream.format("kafka")
    .option("kafka.bootstrap.servers", settings["kafka"])
    .option("subscribe", settings["topic"])
    .option("startingOffsets", "latest")
    .option("includeHeaders", "true")
    .option("maxOffsetsPerTrigger", settings["max_rows"])
    .load()
)
rows = records.select(
    f.col("value").alias("raw_bytes"),
    "topic",
    "partition",
    "offset",
    f.col("timestamp").alias("kafka_timestamp"),
    f.current_timestamp().alias("ingestion_timestamp"),
    f.current_date().alias("ingestion_date"),
    f.col("key").alias("kafka_key"),
    "headers",
)
query = (
    rows.writeStream.format("iceberg")
    .trigger(processingTime=settings["trigger"])
    .option("checkpointLocation", settings["checkpoint"])
    .option("fanout-enabled", "true")
    .option("check-nullability", "false")
    .toTable("bare.db.bronze")
)
query.awaitTermination()
