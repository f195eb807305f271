from __future__ import annotations

import pytest

from failures import QueryFailed, causes, classify, fingerprint
from k2.registry.observed import ExitCode

FENCED = "ERROR: k2 fence: stream bronze_x holds epoch 3, current is 4\n  Where: PL/pgSQL function k2.check_fence() line 15 at RAISE"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (f"Unknown failure\norg.postgresql.util.PSQLException: {FENCED}", ExitCode.FENCED, "k2 fence: stream bronze_x holds epoch 3, current is 4"),
        ("ERROR: k2 fence: stream nobody is not registered", ExitCode.CONFIG, "k2 fence: stream nobody is not registered"),
        ("[CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log.", ExitCode.FENCED, "CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log."),
        (
            "Multiple streaming queries are concurrently using file:/c/offsets",
            ExitCode.FENCED,
            "Multiple streaming queries are concurrently using file:/c/offsets",
        ),
        ("the disk is full", ExitCode.QUERY_FAILED, "RuntimeError: the disk is full"),
    ],
)
def test_failures_are_told_apart_by_what_they_say(text: str, code: ExitCode, message: str) -> None:
    """Losing the stream to another driver is not a failure of the query, however deep in the text it stands."""
    failure = classify(RuntimeError(text))
    assert (failure.code, failure.message) == (code, message)


class Java:
    """A Java exception as py4j shows it: only what its class has can be called."""

    def __init__(self, name: str, text: str, cause: Java | None = None, state: str | None = None) -> None:
        self._name, self._text, self._cause = name, text, cause
        if state is not None:
            self.getSQLState = lambda: state

    def toString(self) -> str:
        return f"{self._name}: {self._text}"

    def getCause(self) -> Java | None:
        return self._cause

    def getClass(self) -> Java:
        return self

    def getName(self) -> str:
        return self._name


def query_failed(state: str) -> QueryFailed:
    """A Bronze query whose commit PostgreSQL refused: its own message says nothing."""
    refused = Java("org.postgresql.util.PSQLException", FENCED, state=state)
    iceberg = Java("org.apache.iceberg.jdbc.UncheckedSQLException", "Unknown failure", refused)
    return QueryFailed(Java("org.apache.spark.sql.streaming.StreamingQueryException", "Unknown failure", iceberg))


def test_a_refusal_is_found_at_the_end_of_the_cause_chain() -> None:
    """Every cause is looked at, also behind an exception that is named like one of SQL and is none."""
    assert [cause.sql_state for cause in causes(query_failed("K2F01"))] == ["", "", "K2F01"]
    assert classify(query_failed("K2F01")).code is ExitCode.FENCED


def test_a_failure_is_told_by_its_root_cause() -> None:
    """Not by the outermost exception, and without Spark's description of the query."""
    root = Java("java.io.IOException", "Mark has been invalidated\n=== Streaming Query ===\nIdentifier: x")
    failure = classify(QueryFailed(Java("StreamingQueryException", "Writing job aborted", root)))
    assert (failure.code, failure.message) == (ExitCode.QUERY_FAILED, "java.io.IOException: Mark has been invalidated")


def test_an_exception_of_a_callback_is_found_behind_the_python_one() -> None:
    """Silver's commits fail inside a Python callback."""
    try:
        try:
            raise query_failed("K2F01")
        except QueryFailed as error:
            raise RuntimeError("the batch failed") from error
    except RuntimeError as error:
        assert classify(error).code is ExitCode.FENCED


@pytest.mark.parametrize(
    ("text", "code", "dependency"),
    [
        ("org.apache.kafka.common.errors.TimeoutException: Timed out waiting for a node assignment. Call: describeTopics", ExitCode.DEPENDENCY, "kafka"),
        ("java.util.concurrent.TimeoutException: Cannot fetch record for offset 5 in 120000 milliseconds", ExitCode.DEPENDENCY, "kafka"),
        ("[KAFKA_DATA_LOSS.START_OFFSET_RESET] Some data may have been lost", ExitCode.INCOMPATIBLE, None),
        ("Cannot load current offset at snapshot 5, the snapshot was expired or removed", ExitCode.INCOMPATIBLE, None),
        ("There are [2] sources in the checkpoint offsets and now there are [1] sources requested by the query", ExitCode.INCOMPATIBLE, None),
        ("java.io.IOException: No space left on device", ExitCode.INFRASTRUCTURE, None),
        ("java.lang.OutOfMemoryError: Java heap space", ExitCode.INFRASTRUCTURE, None),
        ("[DIVIDE_BY_ZERO] Division by zero.", ExitCode.QUERY_FAILED, None),
    ],
)
def test_classes(text: str, code: ExitCode, dependency: str | None) -> None:
    """What does not answer, what the machine lacks and what does not fit are no failures of the query."""
    ended = classify(QueryFailed(Java("org.apache.spark.SparkException", "Job aborted", Java("java.lang.RuntimeException", text))))
    assert (ended.code, ended.dependency) == (code, dependency)
    assert ended.fingerprint.startswith("RuntimeException-")


def test_a_catalog_that_does_not_answer_is_a_dependency() -> None:
    """By the SQL state of a connection that broke; a deadlock is none, and no failure of the query either."""
    for state, found in (("08006", (ExitCode.DEPENDENCY, "catalog")), ("57P01", (ExitCode.DEPENDENCY, "catalog")), ("40P01", (ExitCode.INFRASTRUCTURE, None))):
        ended = classify(QueryFailed(Java("UncheckedSQLException", "Unknown failure", Java("org.postgresql.util.PSQLException", "broken", state=state))))
        assert (ended.code, ended.dependency) == found


def test_a_fingerprint_ignores_what_differs_between_two_times() -> None:
    """Numbers, ids, addresses and paths; not the classes of the chain, and not the words."""
    first = [
        "org.apache.spark.SparkException: Task 3 in stage 12.0 (TID 45)",
        "java.lang.IllegalStateException: bad record at /tmp/a/b.parquet: 17 of Row@1f2e3d",
    ]
    again = ["org.apache.spark.SparkException: Task 0 in stage 4.0 (TID 1)", "java.lang.IllegalStateException: bad record at /x/c.parquet: 99 of Row@aaaa11"]
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first).startswith("IllegalStateException-")
    assert fingerprint(first) != fingerprint([first[0], "java.lang.IllegalStateException: another record"])
    assert fingerprint(first) != fingerprint(first[1:])
