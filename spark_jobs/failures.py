"""What an exception of a query means: the exit code that tells the watchdog which class of failure it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError, Py4JNetworkError

from k2.registry.observed import ExitCode

FENCED_STATE = "K2F01"
CONFIG_STATE = "K2F02"
CHECKPOINT_TAKEN = ("CONCURRENT_STREAM_LOG_UPDATE", "Multiple streaming queries are concurrently")
JVM_NEVER_ANSWERED = "JAVA_GATEWAY_EXITED"
MAX_CAUSES = 20
MAX_MESSAGE = 2000


class QueryFailed(RuntimeError):
    """The query ended by an exception of Java, which pyspark's own exception no longer carries."""

    def __init__(self, java_exception: Any) -> None:
        super().__init__(str(java_exception.toString()).partition("\n")[0])
        self.java_exception = java_exception


@dataclass(frozen=True)
class Failure:
    code: ExitCode
    message: str


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


def classify(error: BaseException) -> Failure:
    """The class of a failure, judged by its Java cause chain and, where only text is left, by the text."""
    chain = causes(error)
    text = "\n".join([str(error), *(cause.text for cause in chain)])
    states = {cause.sql_state for cause in chain}
    if FENCED_STATE in states or ("k2 fence:" in text and "holds epoch" in text):
        return Failure(ExitCode.FENCED, _line(text, "k2 fence:"))
    if CONFIG_STATE in states or "k2 fence:" in text:
        return Failure(ExitCode.CONFIG, _line(text, "k2 fence:"))
    if JVM_NEVER_ANSWERED in text:
        return Failure(ExitCode.JVM_DIED, "the Java process ended before it answered: its own words are above in the log")
    for sign in CHECKPOINT_TAKEN:
        if sign in text:
            return Failure(ExitCode.FENCED, _line(text, sign))
    root = chain[-1].text if chain else f"{type(error).__name__}: {error}"
    root = root.partition("\n=== Streaming Query ===")[0]
    return Failure(ExitCode.QUERY_FAILED, root[:MAX_MESSAGE])


def _line(text: str, sign: str) -> str:
    """The first line that holds `sign`, from there on."""
    line = next(line for line in text.splitlines() if sign in line)
    return line[line.index(sign) :][:MAX_MESSAGE]
