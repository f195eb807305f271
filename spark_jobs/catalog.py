"""The Iceberg catalog of one driver: PostgreSQL knows on each commit which stream and fence makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pyspark.sql import SparkSession

from jvm import java_class
from k2.registry.platform import Platform
from k2.registry.runtime import Role, Runtime

CONNECTION_ERRORS = ("08", "57P", "53300")
"""SQLSTATE classes of a server that cannot be reached, starts, shuts down, or has no connection left."""


@dataclass(frozen=True)
class Access:
    """As whom a driver opens the catalog."""

    role: Role
    name: str
    """As PostgreSQL lists the connection."""
    options: str
    """Session settings, as PostgreSQL's -c arguments."""


def fenced(stream: str, fence: int) -> Access:
    """The platform's catalog, as a stream: the session settings are what the fence's trigger reads."""
    return Access("writer", f"k2 driver {stream}#{fence}", f"-c k2.stream={stream} -c k2.fence={fence}")


def scratch(spare: str) -> Access:
    """A spare's own catalog: tables of a schema that no stream has, by a role that may see no other."""
    return Access("spare", f"k2 spare {spare}", "-c search_path=k2_spare")


def jdbc_uri(runtime: Runtime, access: Access) -> str:
    """The catalog's address. It holds no password."""
    query = f"options={quote(access.options)}&ApplicationName={quote(access.name)}&connectTimeout=5"
    return f"jdbc:postgresql://{runtime.postgres_host}:{runtime.postgres_port}/lakehouse?{query}"


def settings(runtime: Runtime, platform: Platform, access: Access) -> dict[str, str]:
    """Spark's settings of the catalog. They hold the role's password."""
    declared = platform.catalog
    root = f"spark.sql.catalog.{declared.name}"
    return {
        root: "org.apache.iceberg.spark.SparkCatalog",
        f"{root}.type": "jdbc",
        f"{root}.uri": jdbc_uri(runtime, access),
        f"{root}.jdbc.schema-version": "V1",
        f"{root}.jdbc.user": f"k2_{access.role}",
        f"{root}.jdbc.password": runtime.password(access.role),
        f"{root}.warehouse": runtime.warehouse,
        **{f"{root}.table-default.{key}": value for key, value in declared.table_defaults.items()},
    }


def open_catalog(spark: SparkSession, runtime: Runtime, platform: Platform, access: Access) -> Any:
    """Define the catalog in a running session and connect to it. Returns Iceberg's Java Catalog.

    The settings are made only now, when the JVM runs, because settings of the session's builder would stand on its
    command line. Raises Py4JJavaError when PostgreSQL cannot be reached; then it may be called again.
    """
    for key, value in settings(runtime, platform, access).items():
        spark.conf.set(key, value)
    return java_catalog(spark, platform.catalog.name)


def java_catalog(spark: SparkSession, name: str) -> Any:
    """Iceberg's Java Catalog as this session holds it (a streaming query's session has its own)."""
    return spark._jsparkSession.sessionState().catalogManager().catalog(name).icebergCatalog()  # type: ignore[attr-defined]


def load_table(spark: SparkSession, catalog: Any, namespace: str, table: str) -> Any:
    """Iceberg's Java Table, or None when there is no such table."""
    identifier = java_class(spark, "org.apache.iceberg.catalog.TableIdentifier").parse(f"{namespace}.{table}")
    return catalog.loadTable(identifier) if catalog.tableExists(identifier) else None
