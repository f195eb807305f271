"""One Spark session for all tests that restart a query on a damaged checkpoint. It needs neither Kafka nor PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from k2.stack.jars import ensure_jars
from k2.stack.java import find_java
from k2.stack.progress import Silent
from session import start_session

from .breaking_lab import Lab


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    _forget_gateway()
    jars = ensure_jars(find_java(Silent()), Silent())
    session = start_session(application="tests", jars=jars, heap_mb=640, scratch=tmp_path_factory.mktemp("scratch"), fence=1, quick_start=True)
    gateway = session.sparkContext._gateway
    yield session
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    assert gateway.proc.wait(20) == 0
    _forget_gateway()


def _forget_gateway() -> None:
    """PySpark would go on with the JVM of an earlier session of this process, which has ended."""
    SparkContext._gateway = SparkContext._jvm = None


@pytest.fixture
def lab(spark: SparkSession, tmp_path: Path) -> Lab:
    return Lab(spark.newSession(), tmp_path)
