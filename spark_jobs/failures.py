"""What an exception of a query means: the exit code that tells the watchdog which class of failure it was."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError, Py4JNetworkError

from catalog import CONNECTION_ERRORS
from k2.registry.observed import ExitCode

FENCED_STATE = "K2F01"
CONFIG_STATE = "K2F02"
CHECKPOINT_TAKEN = ("CONCURRENT_STREAM_LOG_UPDATE", "Multiple streaming queries are concurrently")
KAFKA_AWAY = (
    "org.apache.kafka.common.errors.TimeoutException",
    "org.apache.kafka.common.errors.DisconnectException",
    "org.apache.kafka.common.errors.NetworkException",
    "org.apache.kafka.common.errors.BrokerNotAvailableException",
    "org.apache.kafka.common.errors.LeaderNotAvailableException",
    "org.apache.kafka.common.errors.NotLeaderOrFollowerException",
    "org.apache.kafka.common.errors.CoordinatorNotAvailableException",
    "org.apache.kafka.common.errors.ReplicaNotAvailableException",
    "org.apache.kafka.common.errors.OffsetNotAvailableException",
    "org.apache.kafka.common.errors.KafkaStorageException",
    "org.apache.kafka.common.errors.UnknownTopicOrPartitionException",
    "No resolvable bootstrap urls",
    "Cannot fetch record for offset",
)
"""What Kafka's client says of a broker that is away, or that is up and does not have everything yet."""
BUSY_STATES = ("40", "53", "55P03", "57014", "58")
"""SQLSTATE classes of a server that answers and cannot do it now: a deadlock, no room, a lock, a cancelled statement."""
INCOMPATIBLE = (
    "KAFKA_DATA_LOSS",
    "KAFKA_NULL_TOPIC_IN_DATA",
    "Some data may have been lost",
    "some data may have been missed",
    "OffsetOutOfRangeException",
    "the snapshot was expired or removed",
    "Cannot process delete snapshot",
    "Cannot process overwrite snapshot",
    "sources in the checkpoint offsets and now there are",
    "CANNOT_LOAD_STATE_STORE",
    "CANNOT_READ_CHECKPOINT",
    "STATE_STORE_",
    "STREAMING_CHECKPOINT_",
    "INVALID_LOG_VERSION",
    "UnsupportedLogVersion",
    "Checkpoint location has",
)
"""What Spark, its Kafka source and Iceberg's say when the checkpoint and the source do not fit any more."""
INFRASTRUCTURE = (
    "java.lang.OutOfMemoryError",
    "SparkOutOfMemoryError",
    "No space left on device",
    "Disk quota exceeded",
    "Too many open files",
    "Input/output error",
    "Read-only file system",
    "Stale file handle",
    "ExecutorLostFailure",
    "org.apache.iceberg.exceptions.CommitFailedException",
    "org.apache.iceberg.exceptions.CommitStateUnknownException",
    "SparkContext was shut down",
    "SparkContext has been shutdown",
    "java.util.concurrent.TimeoutException",
    "java.net.SocketTimeoutException",
    "java.lang.InterruptedException",
    "java.nio.channels.ClosedByInterruptException",
    "Python worker exited unexpectedly",
)
VARIABLE = (
    (re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"), "#"),
    (re.compile(r"@[0-9a-f]{4,}"), "@#"),
    (re.compile(r"(?<![\w/])(?:file:)?/[^\s,;:'\")\]]+"), "/#"),
    (re.compile(r"0x[0-9a-fA-F]+|\d+"), "#"),
)
"""What differs between two messages of one failure: ids, addresses, paths, numbers."""
FINGERPRINT_TEXT = 300
JVM_NEVER_ANSWERED = "JAVA_GATEWAY_EXITED"
MAX_CAUSES = 20
MAX_MESSAGE = 2000


class QueryFailed(RuntimeError):
    """The query ended by an exception of Java, which pyspark's own exception no longer carries."""

    def __init__(self, java_exception: Any) -> None:
        super().__init__(str(java_exception.toString()).partition("\n")[0])
        self.java_exception = java_exception


@dataclass(frozen=True)
class Ended:
    """Why a driver ends."""

    code: ExitCode
    message: str
    fingerprint: str = ""
    dependency: str | None = None


@dataclass(frozen=True)
class Cause:
    """One exception of a Java cause chain."""

    text: str
    sql_state: str = ""


def causes(error: BaseException) -> list[Cause]:
    """The Java cause chain of an exception, outermost first; empty when Java had no part in it, or no longer answers."""
    java = _java_exception(error)
    chain: list[Cause] = []
    try:
        while java is not None and len(chain) < MAX_CAUSES:
            chain.append(Cause(java.toString(), _sql_state(java)))
            java = java.getCause()
    except (OSError, Py4JNetworkError):
        return chain  # the JVM is gone
    return chain


def _java_exception(error: BaseException | None) -> Any:
    """The Java exception behind a Python one; pyspark keeps it in the Py4JJavaError that it made its own exception of."""
    while error is not None:
        for candidate in (error, getattr(error, "_origin", None)):
            if isinstance(candidate, (QueryFailed, Py4JJavaError)):
                return candidate.java_exception
        error = error.__cause__ or error.__context__
    return None


def _sql_state(java: Any) -> str:
    return (java.getSQLState() or "") if java.getClass().getName() == "org.postgresql.util.PSQLException" else ""


def classify(error: BaseException) -> Ended:
    """The class of a failure, judged by its Java cause chain and, where only text is left, by the text."""
    chain = causes(error)
    text = "\n".join([str(error), *(cause.text for cause in chain)])
    states = {cause.sql_state for cause in chain}
    if FENCED_STATE in states or ("k2 fence:" in text and "holds epoch" in text):
        return Ended(ExitCode.FENCED, _line(text, "k2 fence:"))
    if CONFIG_STATE in states or "k2 fence:" in text:
        return Ended(ExitCode.CONFIG, _line(text, "k2 fence:"))
    if JVM_NEVER_ANSWERED in text:
        return Ended(ExitCode.JVM_DIED, "the Java process ended before it answered: its own words are above in the log")
    for sign in CHECKPOINT_TAKEN:
        if sign in text:
            return Ended(ExitCode.FENCED, _line(text, sign))
    root = chain[-1].text if chain else f"{type(error).__name__}: {error}"
    root = root.partition("\n=== Streaming Query ===")[0][:MAX_MESSAGE]
    code, dependency = _class(error, text, states)
    return Ended(code, root, fingerprint([cause.text for cause in chain] or [root]), dependency)


def _class(error: BaseException, text: str, states: set[str]) -> tuple[ExitCode, str | None]:
    if any(state.startswith(CONNECTION_ERRORS) for state in states) or type(error).__name__ == "StateUnavailable":
        return ExitCode.DEPENDENCY, "catalog"
    if any(sign in text for sign in INCOMPATIBLE):
        return ExitCode.INCOMPATIBLE, None
    if any(sign in text for sign in KAFKA_AWAY):
        return ExitCode.DEPENDENCY, "kafka"
    if any(state.startswith(BUSY_STATES) for state in states) or any(sign in text for sign in INFRASTRUCTURE):
        return ExitCode.INFRASTRUCTURE, None
    return ExitCode.QUERY_FAILED, None


def fingerprint(chain: list[str]) -> str:
    """One word for a failure, given the text of each exception of its chain, outermost first: the innermost one's class, and a
    digest of all classes and of its message without what differs from one time to the next."""
    names = [text.partition(":")[0].strip().rpartition(".")[2].split()[0] if text.strip() else "?" for text in chain]
    message = chain[-1].partition("\n")[0]
    for pattern, replacement in VARIABLE:
        message = pattern.sub(replacement, message)
    digest = hashlib.sha256("\n".join([*names, message[:FINGERPRINT_TEXT]]).encode()).hexdigest()
    return f"{names[-1]}-{digest[:8]}"


def _line(text: str, sign: str) -> str:
    """The first line that holds `sign`, from there on."""
    line = next(line for line in text.splitlines() if sign in line)
    return line[line.index(sign) :][:MAX_MESSAGE]
