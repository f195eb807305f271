"""A driver's stacks in a few lines."""

from __future__ import annotations

from k2.launchers.stacks import where

PYTHON = """Thread 0x00007f6bd57fa6c0 (most recent call first):
  File "/env/lib/python3.11/site-packages/psycopg/connection.py", line 117 in wait
  File "/work/spark_jobs/silver_writer.py", line 97 in append
  File "/work/spark_jobs/silver_writer.py", line 120 in write
  File "/env/lib/python3.11/site-packages/pyspark/sql/utils.py", line 161 in call
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap

Current thread 0x00007f6bf0c5a000 (most recent call first):
  File "/work/spark_jobs/driver.py", line 163 in _run
  File "/work/spark_jobs/bronze.py", line 56 in <module>
"""
JAVA = """2026-11-21 16:50:00
Full thread dump OpenJDK 64-Bit Server VM (17.0.19+10 mixed mode, sharing):

"main" #1 prio=5 os_prio=0 cpu=1.0ms elapsed=3.2s tid=0x1 nid=0x2 runnable  [0x3]
   java.lang.Thread.State: RUNNABLE
	at java.io.FileInputStream.read(java.base@17.0.19/Native Method)

"stream execution thread for bronze_binance [id = 1, runId = 2]" #92 daemon prio=5 os_prio=0 cpu=3.1ms elapsed=9.0s tid=0x5 nid=0x6 waiting on condition  [0x7]
   java.lang.Thread.State: TIMED_WAITING (parking)
	at jdk.internal.misc.Unsafe.park(java.base@17.0.19/Native Method)
	- parking to wait for  <0x00000000d8> (a java.util.concurrent.locks)
	at scala.concurrent.Await$.result(package.scala:227)
	at org.apache.spark.sql.kafka010.KafkaOffsetReaderAdmin.fetchLatestOffsets(KafkaOffsetReaderAdmin.scala:372)
	at org.apache.spark.sql.kafka010.KafkaMicroBatchStream.latestOffset(KafkaMicroBatchStream.scala:144)

"other" #93 daemon
"""


def test_the_query_and_what_it_called() -> None:
    """The JVM's plumbing and libraries of Python are left out, the innermost frame comes first."""
    assert where(PYTHON + JAVA).splitlines() == [
        "The query's thread in the JVM (TIMED_WAITING (parking)):",
        "  org.apache.spark.sql.kafka010.KafkaOffsetReaderAdmin.fetchLatestOffsets(KafkaOffsetReaderAdmin.scala:372)",
        "  org.apache.spark.sql.kafka010.KafkaMicroBatchStream.latestOffset(KafkaMicroBatchStream.scala:144)",
        "What Spark has called in Python:",
        "  silver_writer.py:97 append",
        "  silver_writer.py:120 write",
    ]


TASK = """
"Executor task launch worker-1" #80 daemon prio=5 os_prio=0 tid=0x8 nid=0x9 waiting on condition  [0xa]
   java.lang.Thread.State: TIMED_WAITING (parking)
	at jdk.internal.misc.Unsafe.park(java.base@17.0.19/Native Method)

"Executor task launch worker for task 0.0 in stage 7.0 (TID 12)" #81 daemon prio=5 os_prio=0 tid=0x8 nid=0x9 runnable  [0xa]
   java.lang.Thread.State: RUNNABLE
	at sun.nio.ch.EPoll.wait(java.base@17.0.19/Native Method)
	at org.apache.kafka.common.network.Selector.poll(Selector.java:451)
	at org.apache.spark.sql.kafka010.consumer.InternalKafkaConsumer.poll(KafkaDataConsumer.scala:69)

"Executor task launch worker for task 1.0 in stage 7.0 (TID 13)" #82 daemon prio=5 os_prio=0 tid=0x8 nid=0x9 runnable  [0xa]
   java.lang.Thread.State: RUNNABLE
	at org.apache.other(Other.java:1)
"""


def test_a_batch_that_hangs_in_its_tasks() -> None:
    """The query's thread only waits for them, so one of those that run is told; workers without a task are not."""
    assert where(JAVA + TASK).splitlines()[3:] == [
        "The first of 2 running tasks (RUNNABLE):",
        "  org.apache.kafka.common.network.Selector.poll(Selector.java:451)",
        "  org.apache.spark.sql.kafka010.consumer.InternalKafkaConsumer.poll(KafkaDataConsumer.scala:69)",
    ]


def test_a_process_that_prints_nothing_or_something_else() -> None:
    """A frozen driver, a driver without a query, and half a dump say as much as they have."""
    assert where("") == where(PYTHON.partition("Current")[2]) == ""
    assert where(JAVA[: JAVA.index("scala.concurrent")]) == "The query's thread in the JVM (TIMED_WAITING (parking)):"
