"""From rows of Bronze to classified trades: unframe, decode by schema id, map to our terms, judge."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f
from pyspark.sql.avro.functions import from_avro

from decoders.base import Decoder
from expressions import amount
from registry_schemas import Known
from rules import POISON_SKIPPED, error_type, trade_fault

HEADER_BYTES = 5
"""A zero byte and the schema id, four bytes big-endian: Confluent's framing."""


def mandatory_field(schema: str) -> str:
    """A field of a record schema that is never null: NULL in it tells that a record could not be decoded."""
    for field in json.loads(schema)["fields"]:
        if not isinstance(field["type"], list) and field["type"] != "null":
            return str(field["name"])
    raise ValueError("the schema has no field that is never null, so a record that cannot be decoded looks like one that can: add one")


@dataclass(frozen=True)
class Projection:
    """The columns that turn rows of Bronze into classified rows, one select after the other."""

    schemas: Known
    decoded: tuple[Column, ...]
    judged: tuple[Column, ...]


class Classifier:
    """Builds the classified frame of a batch.

    One row per row of Bronze. `fault` is NULL for a valid trade and the error reason for any other; the trade's
    columns are those of the Silver table, the raw record is kept for faulty rows alone.
    """

    def __init__(self, *, exchange: str, reader_schema: str, decoder: Decoder) -> None:
        self._exchange = exchange.upper()
        self._reader_schema = reader_schema
        self._mandatory = mandatory_field(reader_schema)
        self._decoder = decoder
        self._kept: Projection | None = None

    def classify(self, bronze: DataFrame, schemas: Known) -> DataFrame:
        """Classify rows of Bronze with the schemas known; all other ids get `schema_unknown`."""
        if self._kept is None or self._kept.schemas != schemas:
            # Thousands of calls into the JVM, as much as the rest of a small batch costs.
            self._kept = Projection(schemas, self._decoded(schemas), self._judged(schemas))
        return bronze.select(*self._kept.decoded).select(*self._kept.judged)

    def _decoded(self, schemas: Known) -> tuple[Column, ...]:
        """The row's own columns, its schema id, and its record."""
        raw = f.col("raw_bytes")
        is_framed, schema_id = _framing(raw)
        return (
            f.col("topic"),
            f.col("partition").alias("kafka_partition"),
            f.col("offset").alias("kafka_offset"),
            raw,
            f.col("ingestion_timestamp").alias("bronze_ingestion_timestamp"),
            f.unix_micros("kafka_timestamp").alias("kafka_micros"),
            is_framed.alias("is_framed"),
            schema_id.alias("schema_id"),
            # Spark evaluates from_avro again wherever its result is used; behind a generator it is evaluated once.
            f.explode(f.array(self._record(schemas, schema_id))).alias("record"),
        )

    def _judged(self, schemas: Known) -> tuple[Column, ...]:
        """The trade's columns and its fault."""
        raw, record = f.col("raw_bytes"), f.col("record")
        trade = self._decoder.decode(record)
        fault = (
            f.when(raw.isNull(), f.lit("value_is_null"))
            .when(~f.col("is_framed"), f.lit("framing_invalid"))
            .when(_is_in(sorted(schemas.foreign)), f.lit("schema_foreign"))
            .when(~_is_in(sorted(schemas.writers)), f.lit("schema_unknown"))
            .when(record[self._mandatory].isNull(), f.lit("deserialization_failed_or_null_fields"))
            .otherwise(trade_fault(trade, f.col("kafka_micros")))
        )
        position = f.concat_ws(":", "topic", f.col("kafka_partition").cast("string"), f.col("kafka_offset").cast("string"))
        return (
            f.col("topic"),
            f.col("kafka_partition"),
            f.col("kafka_offset"),
            fault.alias("fault"),
            raw,
            f.col("schema_id"),
            f.col("bronze_ingestion_timestamp"),
            f.md5(position.cast("binary")).alias("message_id"),
            trade.trade_id.alias("trade_id"),
            trade.symbol.alias("symbol"),
            trade.timestamp.alias("timestamp"),
            amount(trade.price).alias("price"),
            amount(trade.quantity).alias("quantity"),
            trade.currency.alias("currency"),
            trade.side.alias("side"),
            trade.trade_conditions.alias("trade_conditions"),
            trade.source_sequence.alias("source_sequence"),
            trade.ingestion_timestamp.alias("ingestion_timestamp"),
            trade.vendor_data.alias("vendor_data"),
        )

    def skipped(self, bronze: DataFrame, like: DataFrame) -> DataFrame:
        """Rows of Bronze that are not to be decoded, with the columns of a classified frame."""
        raw = f.col("raw_bytes")
        known = {
            "topic": f.col("topic"),
            "kafka_partition": f.col("partition"),
            "kafka_offset": f.col("offset"),
            "fault": f.lit(POISON_SKIPPED),
            "raw_bytes": raw,
            "schema_id": _framing(raw)[1],
            "bronze_ingestion_timestamp": f.col("ingestion_timestamp"),
        }
        return bronze.select(*(known.get(field.name, f.lit(None)).cast(field.dataType).alias(field.name) for field in like.schema.fields))

    def silver(self, classified: DataFrame) -> DataFrame:
        """The valid rows, with all columns of the Silver table."""
        return classified.where(f.col("fault").isNull()).withColumns(
            {
                "exchange": f.lit(self._exchange),
                "asset_class": f.lit("crypto"),
                "platform_sequence": f.lit(None).cast("bigint"),
                "validation_timestamp": f.current_timestamp(),
                "trade_time": f.timestamp_micros("timestamp"),
            }
        )

    def dlq(self, classified: DataFrame, source: str) -> DataFrame:
        """The other rows, with the columns of the DLQ table."""
        return classified.where(f.col("fault").isNotNull()).select(
            f.col("raw_bytes").alias("raw_record"),
            f.col("fault").alias("error_reason"),
            error_type(f.col("fault")).alias("error_type"),
            f.current_timestamp().alias("error_timestamp"),
            f.lit(source).alias("bronze_source"),
            f.col("topic").alias("kafka_topic"),
            "kafka_partition",
            "kafka_offset",
            "schema_id",
            f.current_date().alias("dlq_date"),
        )

    def _record(self, schemas: Known, schema_id: Column) -> Column:
        """The decoded record: NULL where the schema id is not a known writer's, NULL fields where decoding failed."""
        body = f.substring(f.col("raw_bytes"), HEADER_BYTES + 1, 2**31 - 1)
        options = {"mode": "PERMISSIVE", "avroSchema": self._reader_schema}
        record = f.when(f.lit(False), from_avro(f.lit(None).cast("binary"), self._reader_schema, {"mode": "PERMISSIVE"}))
        for known_id, writer_schema in sorted(schemas.writers.items()):
            record = record.when(schema_id == known_id, from_avro(body, writer_schema, options))
        return record


def _framing(raw: Column) -> tuple[Column, Column]:
    """Whether a value is framed, and its schema id, NULL where it is not."""
    is_framed = (f.length(raw) > HEADER_BYTES) & (f.substring(raw, 1, 1) == f.lit(b"\x00"))
    return is_framed, f.when(is_framed, f.conv(f.hex(f.substring(raw, 2, 4)), 16, 10).try_cast("int"))


def _is_in(ids: list[int]) -> Column:
    return f.coalesce(f.col("schema_id").isin(*ids), f.lit(False)) if ids else f.lit(False)
