"""What people want of each stream, and where its table stands in the catalog: one kept SQL connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import psycopg

from k2.probes.reading import read
from k2.registry.observed import Reading, Wanted
from k2.registry.runtime import Runtime
from k2.state import database, streams
from k2.state.database import Connection

T = TypeVar("T")


class StateProbe:
    """Reads the `lakehouse` database as k2_control. A broken connection is replaced at the next question."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._connection: Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question, asked again once over a fresh connection when the kept one has broken.

        Raises database.StateUnavailable.
        """
        kept = self._connection is not None
        try:
            if self._connection is None:
                self._connection = database.session(self._runtime, "control")
            return question(self._connection)
        except psycopg.OperationalError as error:
            self.close()
            if kept:
                return self.ask(question)
            raise database.StateUnavailable(f"PostgreSQL broke off: {error}") from error

    def wanted(self, names: Iterable[str]) -> dict[str, Reading[Wanted]]:
        """Per stream, in one query. A stream without a row is a reading with an error."""
        answer = read(lambda: self.ask(streams.wanted_all))
        readings: dict[str, Reading[Wanted]] = {}
        for name in names:
            if answer.value is None:
                readings[name] = Reading(answer.at, error=answer.error)
            elif name not in answer.value:
                readings[name] = Reading(answer.at, error=f"stream {name!r} is not registered in the database: run ./k2 up again")
            else:
                readings[name] = Reading(answer.at, answer.value[name])
        return readings

    def metadata_locations(self, names: Iterable[str]) -> dict[str, str]:
        """Where the current metadata file of each table is; a table that does not exist is missing."""
        catalog = self._runtime.platform.catalog
        rows = self.ask(
            lambda connection: connection.execute(
                "SELECT table_name, metadata_location FROM iceberg_tables WHERE catalog_name = %s AND table_namespace = %s AND table_name = ANY(%s)",
                (catalog.name, catalog.namespace, list(names)),
            ).fetchall()
        )
        return {row["table_name"]: row["metadata_location"] for row in rows}
