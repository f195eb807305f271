"""Observations of streams: every source asked once for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType

import httpx

from k2.checkpoints.tails import Tails
from k2.launchers.client import NO_TLS, AgentClient
from k2.probes import iceberg, kafka
from k2.probes.changes import DriverChanges, WantedChanges
from k2.probes.driver import Drivers, drivers
from k2.probes.reading import failed, read
from k2.probes.state import StateProbe
from k2.probes.status import ANSWER_SECONDS, statuses
from k2.registry.observed import Checkpoint, Driver, Head, Observation, QueryStatus, Reading, Wanted
from k2.registry.runtime import Runtime


@dataclass(frozen=True)
class Quick:
    """The two readings without which nothing may be done to a stream; cheap enough for several times a second."""

    wanted: Mapping[str, Reading[Wanted]]
    drivers: Drivers
    changed: set[str] | None = None
    """Streams of which one of the two changed since the look before; None when that is not known."""


@dataclass(frozen=True)
class Progress:
    """The three readings that tell how a running query fares; each may take seconds."""

    status: Reading[QueryStatus]
    checkpoint: Reading[Checkpoint]
    head: Reading[Head]
    registry: Reading[bool] | None = None
    """Asked only while a driver waits for it."""


class Observer:
    """The clients that observing takes, kept open between looks. For one thread at a time.

    `state` is the kept SQL connection, for whoever records what was observed.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._agent = AgentClient(runtime)
        self.state = StateProbe(runtime)
        self._http = httpx.Client(timeout=ANSWER_SECONDS, trust_env=False, verify=NO_TLS)
        self._kafka = kafka.KafkaHeads(runtime.kafka)
        self._tables = iceberg.TableHeads()
        self._tails = Tails()
        self._wanted = WantedChanges(self.state)
        self._drivers = DriverChanges(self._agent)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for client in (self._agent, self.state, self._http, self._kafka):
            client.close()

    def observe(self, names: Iterable[str] | None = None) -> dict[str, Observation]:
        """All of it for the named streams, by default for every declared one."""
        wanted = list(self.runtime.platform.streams if names is None else names)
        at = datetime.now(UTC)
        quick = self.quick(wanted)
        return compose(at, quick, self.progress({name: quick.drivers.newest[name] for name in wanted}))

    def quick(self, names: Iterable[str]) -> Quick:
        """Drivers and what is wanted.

        What is wanted is read first: a start in between then shows as a driver that is newer than the database says,
        which holds; in the other order it would show as a driver that is missing.
        """
        names = list(names)
        return Quick(self.state.wanted(names), drivers(self._agent, names))

    def changes(self, names: Iterable[str]) -> Quick:
        """The same, in the same order, for who asks several times a second: read again only where it changed, and confirmed each time."""
        wanted, rewritten = self._wanted.look()
        found, moved = self._drivers.look(names)
        return Quick(wanted, found, None if rewritten is None or moved is None else rewritten | moved)

    def wait_for_change(self, version: int | None, wait_seconds: float) -> None:
        """Return as soon as the agent's list of drivers is not at `version`, or after the wait."""
        started = time.monotonic()
        answer = read(lambda: self._agent.wait_for_change(version, wait_seconds)) if version is not None else None
        if answer is None or not answer.known:
            time.sleep(max(0.0, wait_seconds - (time.monotonic() - started)))

    def progress(self, newest: Mapping[str, Reading[Driver]]) -> dict[str, Progress]:
        """How the query of each stream fares, given its driver."""
        status = statuses(newest)
        checkpoints = self.checkpoints(newest)
        heads = self.kafka_heads(checkpoints) | self.table_heads(checkpoints)
        registry = self.registry(status.values())
        return {name: Progress(status[name], checkpoints[name], heads[name], registry) for name in newest}

    def checkpoints(self, names: Iterable[str]) -> dict[str, Reading[Checkpoint]]:
        return {name: read(lambda name=name: self._tails.read(self.runtime.checkpoint(name))) for name in names}

    def registry(self, words: Iterable[Reading[QueryStatus]]) -> Reading[bool] | None:
        """Whether the schema registry answers; None when none of these drivers waits for it."""
        waits = any(reading.value is not None and reading.value.waits_for == "schema_registry" for reading in words)
        return read(self._registry_answers) if waits else None

    def _registry_answers(self) -> bool:
        self._http.get(f"{self.runtime.schema_registry}/subjects").raise_for_status()
        return True

    def kafka_heads(self, checkpoints: Mapping[str, Reading[Checkpoint]]) -> dict[str, Reading[Head]]:
        """Of those streams that read a topic."""
        platform = self.runtime.platform
        topics = {name: platform.exchanges[platform.streams[name].exchange].topic for name in checkpoints if platform.streams[name].reads is None}
        if not topics:
            return {}
        ends = read(lambda: self._kafka.ends(sorted(set(topics.values()))))
        if ends.value is None:
            return {name: Reading(ends.at, error=ends.error, silent=ends.silent) for name in topics}
        known = ends.value
        return {
            name: _at(ends.at, read(lambda name=name, topic=topic: kafka.head(self._kafka, topic, known[topic], _committed(checkpoints[name]), ends.at)))
            for name, topic in topics.items()
        }

    def table_heads(self, checkpoints: Mapping[str, Reading[Checkpoint]]) -> dict[str, Reading[Head]]:
        """Of those streams that read a table."""
        tables = {name: table for name in checkpoints if (table := self.runtime.platform.streams[name].reads) is not None}
        if not tables:
            return {}
        at = datetime.now(UTC)
        try:
            locations = self.state.metadata_locations(set(tables.values()))
        except Exception as error:
            return {name: failed(at, error) for name in tables}

        def head(name: str, table: str) -> Head:
            if table not in locations:
                raise LookupError(f"table {table} is not in the catalog yet")
            return iceberg.head(self._tables.branch(table, locations[table]), _committed(checkpoints[name]), at)

        return {name: _at(at, read(lambda name=name, table=table: head(name, table))) for name, table in tables.items()}


def compose(at: datetime, quick: Quick, progress: Mapping[str, Progress]) -> dict[str, Observation]:
    """One observation per stream of `progress`."""
    return {
        name: Observation(
            stream=name,
            at=at,
            wanted=quick.wanted[name],
            driver=quick.drivers.newest[name],
            status=found.status,
            checkpoint=found.checkpoint,
            head=found.head,
            others=quick.drivers.others.get(name, ()),
            registry=found.registry,
        )
        for name, found in progress.items()
    }


def _committed(checkpoint: Reading[Checkpoint]) -> dict[str, object] | None:
    """The committed position, where lag begins. Raises what made the checkpoint unreadable: then lag is unknown."""
    if checkpoint.value is None:
        raise RuntimeError(f"the lag needs the checkpoint: {checkpoint.error}")
    return checkpoint.value.committed


def _at(at: datetime, reading: Reading[Head]) -> Reading[Head]:
    """A head is as old as the question about the source, however long the lag took to compute."""
    return replace(reading, at=at)
