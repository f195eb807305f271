"""A driver's own word about its query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from pydantic import TypeAdapter

from k2.probes.fetch import NoAnswer, fetch
from k2.probes.reading import failed
from k2.registry.observed import Driver, DriverState, QueryStatus, Reading

ANSWER_SECONDS = 2.0

_STATUS = TypeAdapter(QueryStatus)


class NoWord(RuntimeError):
    """The driver gives no status, or gives another driver's."""


def statuses(drivers: Mapping[str, Reading[Driver]]) -> dict[str, Reading[QueryStatus]]:
    """The status of each stream's driver, asked at the same time: a frozen driver delays no other."""
    return dict(as_they_come(drivers))


def as_they_come(drivers: Mapping[str, Reading[Driver]]) -> Iterator[tuple[str, Reading[QueryStatus]]]:
    """The same, one after the other, each as soon as it is known. Every stream has its turn."""
    at = datetime.now(UTC)
    urls: dict[str, str] = {}
    for name, reading in drivers.items():
        if isinstance(asked := _url(reading), str):
            urls[name] = asked
        else:
            yield name, Reading(at, error=str(asked)) if reading.value is None else failed(at, asked)
    for name, answer in fetch(urls, ANSWER_SECONDS):
        yield name, _reading(at, answer, name, drivers[name])


def _url(reading: Reading[Driver]) -> str | NoWord:
    driver = reading.value
    if driver is None:
        return NoWord("the driver is not known")
    if driver.state is not DriverState.RUNNING:
        return NoWord("no driver runs")
    return driver.status_url or NoWord("the driver does not listen yet")


def _reading(at: datetime, answer: bytes | NoAnswer, name: str, asked: Reading[Driver]) -> Reading[QueryStatus]:
    """A word is as old as the question, however late it came."""
    driver = asked.value
    assert driver is not None
    try:
        if isinstance(answer, NoAnswer):
            raise answer
        said = _STATUS.validate_json(answer)
        if (said.stream, said.fence) != (name, driver.fence):
            raise NoWord(f"{driver.status_url} answers for {said.stream}#{said.fence}, not {name}#{driver.fence}")
        return Reading(at, said)
    except (NoAnswer, NoWord, ValueError) as error:
        return failed(at, error)
