"""The fenced Iceberg catalog of one driver: PostgreSQL knows on each commit which stream and fence makes it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pyspark.sql import SparkSession

from jvm import java_class
from k2.registry.runtime import Runtime

CONNECTION_ERRORS = ("08", "57P")
"""SQLSTATE classes of a server that cannot be reached, starts or shuts down."""


def jdbc_uri(runtime: Runtime, stream: str, fence: int) -> str:
    """The catalog's address; the session settings in it are what the fence's trigger reads."""
    options = quote(f"-c k2.stream={stream} -c k2.fence={fence}")
    name = quote(f"k2 driver {stream}#{fence}")
    return f"jdbc:postgresql://{runtime.postgres_host}:{runtime.postgres_port}/lakehouse?options={options}&ApplicationName={name}&connectTimeout=5"


def settings(runtime: Runtime, stream: str, fence: int) -> dict[str, str]:
    """Spark's settings of the catalog. They hold the writer's password."""
    declared = runtime.platform.catalog
    root = f"spark.sql.catalog.{declared.name}"
    return {
        root: "org.apache.iceberg.spark.SparkCatalog",
        f"{root}.type": "jdbc",
        f"{root}.uri": jdbc_uri(runtime, stream, fence),
        f"{root}.jdbc.schema-version": "V1",
        f"{root}.jdbc.user": "k2_writer",
        f"{root}.jdbc.password": runtime.password("writer"),
        f"{root}.warehouse": runtime.warehouse,
        **{f"{root}.table-default.{key}": value for key, value in declared.table_defaults.items()},
    }


def open_catalog(spark: SparkSession, runtime: Runtime, stream: str, fence: int) -> Any:
    """Define the catalog in a running session and connect to it. Returns Iceberg's Java Catalog.

    The settings are made only now, when the JVM runs, because settings of the session's builder would stand on its
    command line. Raises Py4JJavaError when PostgreSQL cannot be reached; then it may be called again.
    """
    for key, value in settings(runtime, stream, fence).items():
        spark.conf.set(key, value)
    return java_catalog(spark, runtime.platform.catalog.name)


def java_catalog(spark: SparkSession, name: str) -> Any:
    """Iceberg's Java Catalog as this session holds it (a streaming query's session has its own)."""
    return spark._jsparkSession.sessionState().catalogManager().catalog(name).icebergCatalog()  # type: ignore[attr-defined]


def load_table(spark: SparkSession, catalog: Any, namespace: str, table: str) -> Any:
    """Iceberg's Java Table, or None when there is no such table."""
    identifier = java_class(spark, "org.apache.iceberg.catalog.TableIdentifier").parse(f"{namespace}.{table}")
    return catalog.loadTable(identifier) if catalog.tableExists(identifier) else None
