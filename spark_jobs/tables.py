"""The tables of each layer: their columns, partitions and properties, created when missing and verified when not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from catalog import load_table
from jvm import java_class
from k2.registry.platform import ConfigError, Layer, Platform


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    required: bool = True

    @property
    def ddl(self) -> str:
        """As Spark writes it."""
        return f"{self.name} {self.type}{' NOT NULL' if self.required else ''}"


@dataclass(frozen=True)
class Layout:
    columns: tuple[Column, ...]
    days_of: str
    """The column by whose day the table is partitioned."""

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def ddl(self) -> str:
        return ",".join(column.ddl for column in self.columns)


LAYOUTS: dict[Layer, Layout] = {
    Layer.BRONZE: Layout(
        (
            Column("raw_bytes", "BINARY", required=False),  # a tombstone has no value, and Bronze keeps every record
            Column("topic", "STRING"),
            Column("partition", "INT"),
            Column("offset", "BIGINT"),
            Column("kafka_timestamp", "TIMESTAMP"),
            Column("ingestion_timestamp", "TIMESTAMP"),
            Column("ingestion_date", "DATE"),
            Column("kafka_key", "BINARY", required=False),
            Column("headers", "ARRAY<STRUCT<key: STRING, value: BINARY>>", required=False),
        ),
        "ingestion_date",
    ),
    Layer.SILVER: Layout(
        (
            Column("message_id", "STRING"),
            Column("trade_id", "STRING"),
            Column("symbol", "STRING"),
            Column("exchange", "STRING"),
            Column("asset_class", "STRING"),
            Column("timestamp", "BIGINT"),
            Column("price", "DECIMAL(38,8)"),
            Column("quantity", "DECIMAL(38,8)"),
            Column("currency", "STRING"),
            Column("side", "STRING"),
            Column("trade_conditions", "ARRAY<STRING>"),
            Column("source_sequence", "BIGINT", required=False),
            Column("ingestion_timestamp", "BIGINT"),
            Column("platform_sequence", "BIGINT", required=False),
            Column("vendor_data", "STRING", required=False),
            Column("validation_timestamp", "TIMESTAMP"),
            Column("bronze_ingestion_timestamp", "TIMESTAMP"),
            Column("schema_id", "INT"),
            Column("trade_time", "TIMESTAMP"),
            Column("kafka_partition", "INT"),
            Column("kafka_offset", "BIGINT"),
        ),
        "trade_time",
    ),
    Layer.DLQ: Layout(
        (
            Column("raw_record", "BINARY", required=False),  # a tombstone
            Column("error_reason", "STRING"),
            Column("error_type", "STRING"),
            Column("error_timestamp", "TIMESTAMP"),
            Column("bronze_source", "STRING"),
            Column("kafka_topic", "STRING"),
            Column("kafka_partition", "INT"),
            Column("kafka_offset", "BIGINT"),
            Column("schema_id", "INT", required=False),  # no framing, no id
            Column("dlq_date", "DATE"),
        ),
        "dlq_date",
    ),
}


@dataclass(frozen=True)
class Found:
    """What the catalog says of a table."""

    columns: str
    partitions: tuple[str, ...]
    format_version: str
    properties: dict[str, str]


def wanted_properties(platform: Platform, table: str) -> dict[str, str]:
    """The properties that a table must have: the catalog's defaults and the table's own."""
    size = platform.tables[table].target_file_size_mb * 1024 * 1024
    return {**platform.catalog.table_defaults, "write.target-file-size-bytes": str(size)}


def create_statement(platform: Platform, table: str) -> str:
    """DDL that names only what the catalog's defaults do not give."""
    layout = LAYOUTS[platform.tables[table].layer]
    size = wanted_properties(platform, table)["write.target-file-size-bytes"]
    return (
        f"CREATE TABLE IF NOT EXISTS {platform.catalog.name}.{platform.catalog.namespace}.{table} ({layout.ddl}) USING iceberg "
        f"PARTITIONED BY (days({layout.days_of})) TBLPROPERTIES ('write.target-file-size-bytes' = '{size}')"
    )


def mistakes(platform: Platform, table: str, found: Found) -> list[str]:
    """How a table differs from what the registry and its layer ask for: one line each with the value and the fix."""
    full = f"{platform.catalog.name}.{platform.catalog.namespace}.{table}"
    layout = LAYOUTS[platform.tables[table].layer]
    wrong = []
    if found.columns != layout.ddl:
        wrong.append(f"{full}: columns are ({found.columns}), expected ({layout.ddl}): migrate the table, or move it away and let it be created again")
    partitions = (f"day({layout.days_of})",)
    if found.partitions != partitions:
        wrong.append(f"{full}: partitioned by {', '.join(found.partitions) or 'nothing'}, expected {partitions[0]}: ALTER TABLE {full} REPLACE PARTITION FIELD")
    properties = {**found.properties, "format-version": found.format_version}
    for key, value in wanted_properties(platform, table).items():
        if properties.get(key) != value:
            wrong.append(
                f"{full}: property {key} is {properties.get(key)!r}, platform.yaml says {value!r}: "
                f"ALTER TABLE {full} SET TBLPROPERTIES ('{key}' = '{value}'), or correct platform.yaml"
            )
    return wrong


def examine(spark: SparkSession, java_table: Any, properties: Iterable[str]) -> Found:
    """Read a Java Table's columns, partitioning and the named properties."""
    schema, held = java_table.schema(), java_table.properties()
    spec = json.loads(java_class(spark, "org.apache.iceberg.PartitionSpecParser").toJson(java_table.spec()))
    return Found(
        columns=java_class(spark, "org.apache.iceberg.spark.SparkSchemaUtil").convert(schema).toDDL(),
        partitions=tuple(f"{field['transform']}({schema.findColumnName(field['source-id'])})" for field in spec["fields"]),
        format_version=str(java_table.operations().current().formatVersion()),
        properties={name: value for name in properties if (value := held.get(name)) is not None},
    )


def ensure_table(spark: SparkSession, catalog: Any, platform: Platform, table: str) -> Any:
    """Create a table if it is missing and verify it. Returns its Java Table; raises ConfigError naming every difference."""
    namespace = platform.catalog.namespace
    java_table = load_table(spark, catalog, namespace, table)
    for attempts_left in (2, 1, 0):
        if java_table is not None:
            break
        try:
            spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {platform.catalog.name}.{namespace}")
            spark.sql(create_statement(platform, table))
        except Exception:
            # IF NOT EXISTS asks first and inserts then: another driver that starts now may have come between.
            if not attempts_left:
                raise
        java_table = load_table(spark, catalog, namespace, table)
    _verify(spark, java_table, platform, table)
    return java_table


def verify_table(spark: SparkSession, catalog: Any, platform: Platform, table: str) -> None:
    """Raises ConfigError when a table is missing or differs from what is declared."""
    java_table = load_table(spark, catalog, platform.catalog.namespace, table)
    if java_table is None:
        raise ConfigError(f"tables.{table}: the catalog has no such table, and the stream has committed batches to another: name the table that it has now")
    _verify(spark, java_table, platform, table)


def _verify(spark: SparkSession, java_table: Any, platform: Platform, table: str) -> None:
    if wrong := mistakes(platform, table, examine(spark, java_table, wanted_properties(platform, table))):
        raise ConfigError("\n".join(wrong))
