"""The Spark session of one driver: local mode, small, loopback only, and only settings that act."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from jvm import java_class
from k2.registry.runtime import class_archive

CORES = 2
TASKS_PER_DRIVER = 1_000_000_000

FIRST_COMPILER = "-XX:TieredStopAtLevel=1"
JVM_OPTIONS = (
    "-XX:+UseSerialGC",  # heaps of this size gain nothing from parallel collectors, and several drivers share two cores
    "-XX:+ExitOnOutOfMemoryError",  # a JVM that survives one goes on without the thread that died of it
    "-Xlog:disable -Xlog:all=error:stderr",  # which classes the archive leaves out is nobody's concern
    "-Djava.net.preferIPv4Stack=true",
    # A corrupt length inside a message must fail that message's decoding and not take the heap with it.
    "-Dorg.apache.avro.limits.string.maxLength=1048576",
    "-Dorg.apache.avro.limits.bytes.maxLength=1048576",
    "-Dorg.apache.avro.limits.collectionItems.maxLength=65536",
)


def start_session(
    *, application: str, jars: Path, heap_mb: int, scratch: Path, fence: int, quick_start: bool = False, write_archive: Path | None = None
) -> SparkSession:
    """Start the JVM and its session. `scratch` takes Spark's temporary files; it is created.

    With `quick_start` the JVM compiles with its first compiler alone.

    No password is among the settings: they are all on the JVM's command line.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["SPARK_LOCAL_DIRS"] = str(scratch)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LAUNCHER_OPTS"] = f"{FIRST_COMPILER} -XX:+UseSerialGC"  # of the small JVM that only writes the command line of the next
    options = [*JVM_OPTIONS, f"-Djava.io.tmpdir={scratch}"]
    if quick_start:
        options.append(FIRST_COMPILER)
    if write_archive:
        options.append(f"-XX:ArchiveClassesAtExit={write_archive}")
    elif class_archive(jars).exists():
        options.append(f"-XX:SharedArchiveFile={class_archive(jars)}")
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": f"{heap_mb}m",
        "spark.driver.extraClassPath": str(jars / "spark" / "*"),
        "spark.driver.extraJavaOptions": " ".join(options),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.caseSensitive": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.python.sql.dataFrameDebugging.enabled": "false",  # it would carry Python's call site into the JVM with each expression
        "spark.sql.adaptive.enabled": "false",  # it would plan each stage anew, and there is one partition to plan for
    }
    conf = SparkConf().setMaster(f"local[{CORES}]").setAppName(application).setAll(list(settings.items()))
    # A process group of its own: a SIGTERM for the driver's group must not end the JVM in the middle of the batch.
    gateway = launch_gateway(conf, popen_kwargs={"process_group": 0})
    spark = SparkSession(SparkContext(conf=conf, gateway=gateway))
    number_tasks_from(spark, fence)
    return spark


def number_tasks_from(spark: SparkSession, fence: int) -> None:
    """Give this driver task ids that no other driver of the stream has.

    Iceberg names the files of a streaming append by partition, task id, query id and epoch. Spark counts task ids
    from 0 in each process, so a driver that replays its predecessor's batch would open, and truncate, files that are
    already part of the table. Method handles, because py4j hands out an AtomicLong as a plain number.
    """
    scheduler: Any = spark.sparkContext._jsc.sc().taskScheduler()  # type: ignore[union-attr]
    handles = "java.lang.invoke.MethodHandles"
    counter = java_class(spark, "java.lang.Class").forName("java.util.concurrent.atomic.AtomicLong")
    lookup, type_of = java_class(spark, handles).publicLookup(), java_class(spark, "java.lang.invoke.MethodType").methodType
    getter = lookup.findVirtual(scheduler.getClass(), "nextTaskId", type_of(counter))
    setter = lookup.findVirtual(counter, "set", type_of(java_class(spark, "java.lang.Void").TYPE, java_class(spark, "java.lang.Long").TYPE))
    filters = spark.sparkContext._gateway.new_array(java_class(spark, "java.lang.invoke.MethodHandle"), 1)  # type: ignore[union-attr]
    filters[0] = getter
    arguments = java_class(spark, "java.util.ArrayList")()
    arguments.add(scheduler)
    arguments.add(java_class(spark, "java.lang.Long").valueOf(fence * TASKS_PER_DRIVER))
    java_class(spark, handles).filterArguments(setter, 0, filters).invokeWithArguments(arguments)
    if scheduler.nextTaskId() < fence * TASKS_PER_DRIVER:
        raise RuntimeError(f"Spark's task ids do not start at {fence * TASKS_PER_DRIVER}: data files of two drivers could share a name")
