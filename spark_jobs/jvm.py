"""The driver's JVM as Python reaches it, at one round trip a call.

Two things look harmless and cost a tenth of a second: a dotted path (`jvm.org.apache...`) asks the class loader for each
of its parts, and a Java collection that Python iterates ends in an exception that pyspark compares with a dozen classes.
"""

from __future__ import annotations

from typing import Any

from py4j.java_gateway import java_import
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession


def java_class(spark: SparkSession, name: str) -> Any:
    """A Java class by its full name."""
    return getattr(spark._jvm, name)


class QueryEvents:
    """Receives the events of a session's streaming queries as the JSON texts that Spark writes of them.

    pyspark's own listener takes an event apart with some hundred calls, most of them for figures that nobody asked for.
    """

    def onQueryStarted(self, event: Any) -> None:
        self.started(event.json())

    def onQueryProgress(self, event: Any) -> None:
        self.progressed(event.progress().json())

    def onQueryIdle(self, _: Any) -> None:
        self.idle()

    def onQueryTerminated(self, _: Any) -> None:
        self.terminated()

    def started(self, event: str) -> None:
        """Called while the query starts, with its `id` and `runId`."""

    def progressed(self, progress: str) -> None:
        """Called after each batch, with its StreamingQueryProgress."""

    def idle(self) -> None:
        """Called now and then while there is nothing to read."""

    def terminated(self) -> None:
        """Called when the query has ended."""

    class Java:
        implements = ("org.apache.spark.sql.streaming.PythonStreamingQueryListener",)


def listen(spark: SparkSession, events: QueryEvents) -> None:
    """Hand the events of the session's queries to `events`, in threads of their own."""
    gateway = spark.sparkContext._gateway
    java_import(spark._jvm, "org.apache.spark.sql.streaming.*")
    ensure_callback_server_started(gateway)
    wrapper = java_class(spark, "org.apache.spark.sql.streaming.PythonStreamingQueryListenerWrapper")
    spark.streams._jsqm.addListener(wrapper(events))
