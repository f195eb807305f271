"""A driver's own word about its query."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
from pydantic import TypeAdapter

from k2.probes.reading import read
from k2.registry.observed import Driver, DriverState, QueryStatus, Reading

ANSWER_SECONDS = 2.0
AT_ONCE = 8

_STATUS = TypeAdapter(QueryStatus)


class NoWord(RuntimeError):
    """The driver gives no status, or gives another driver's."""


def status(http: httpx.Client, name: str, driver: Driver) -> QueryStatus:
    """Raises NoWord, httpx.HTTPError, or pydantic's ValidationError for an answer that is not a QueryStatus."""
    if driver.state is not DriverState.RUNNING:
        raise NoWord("no driver runs")
    if driver.status_url is None:
        raise NoWord("the driver does not listen yet")
    said = _STATUS.validate_json(http.get(driver.status_url).raise_for_status().content)
    if (said.stream, said.fence) != (name, driver.fence):
        raise NoWord(f"{driver.status_url} answers for {said.stream}#{said.fence}, not {name}#{driver.fence}")
    return said


def statuses(http: httpx.Client, drivers: Mapping[str, Reading[Driver]]) -> dict[str, Reading[QueryStatus]]:
    """The status of each stream's driver, asked at the same time: a frozen driver delays no other."""
    known = {name: driver.value for name, driver in drivers.items() if driver.value is not None}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = {name: pool.submit(read, lambda name=name, driver=driver: status(http, name, driver)) for name, driver in known.items()}
        readings = {name: future.result() for name, future in asked.items()}
    silent = Reading[QueryStatus](datetime.now(UTC), error="the driver is not known")
    return {name: readings.get(name, silent) for name in drivers}
