"""Records that make a batch fail: found by halving, and left out once a person has said so."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import Column
from pyspark.sql import functions as f

from driver import Driver
from k2.registry.observed import Records
from k2.state import skips
from k2.state.database import StateUnavailable, connect
from k2.state.skips import Skip

NARROW_SECONDS = 60.0


@dataclass(frozen=True, order=True)
class Range:
    """Records of one Kafka partition, both ends included."""

    topic: str
    partition: str
    first: int
    last: int

    def condition(self) -> Column:
        """Whether a row of Bronze is one of them."""
        return (f.col("topic") == self.topic) & (f.col("partition") == int(self.partition)) & f.col("offset").between(self.first, self.last)


def ranges_of(records: Records) -> list[Range]:
    return [Range(topic, number, *ends) for topic, numbers in records.items() for number, ranges in numbers.items() for ends in ranges]


def records_of(ranges: Iterable[Range]) -> Records:
    """Neighbours are joined."""
    found: Records = {}
    for one in sorted(ranges):
        known = found.setdefault(one.topic, {}).setdefault(one.partition, [])
        if known and known[-1][1] + 1 == one.first:
            known[-1][1] = one.last
        else:
            known.append([one.first, one.last])
    return found


def among(records: Records) -> Column:
    """Whether a row of Bronze is one of the records."""
    return functools.reduce(operator.or_, (one.condition() for one in ranges_of(records)), f.lit(False))


def narrow(records: Records, fails: Callable[[Range], bool], enough: Callable[[], bool]) -> tuple[Records, bool]:
    """The records that fail by themselves, found by halving ranges. `fails` tells whether a range does, `enough` when to stop.

    Returns them, and True when each was seen to fail. When there was no time for all, what is left is named in whole ranges;
    when no single record fails, as with a batch that is too large as a whole, all that was given is returned. False for both.
    """
    whole = ranges_of(records)
    found: list[Range] = []
    left = [(one, False) for one in whole]
    while left:
        one, seen_to_fail = left.pop()
        if enough():
            rest = [one, *(other for other, _ in left)]
            return records_of([*found, *rest]), False
        if not seen_to_fail and not fails(one):
            continue
        if one.first == one.last:
            found.append(one)
            continue
        middle = (one.first + one.last) // 2
        low, high = Range(one.topic, one.partition, one.first, middle), Range(one.topic, one.partition, middle + 1, one.last)
        if fails(low):
            left += [(low, True), (high, False)]
        else:
            left.append((high, high.first < high.last))  # what fails in the whole and not below is above; a single record is asked all the same
    return (records_of(found), True) if found else (records, False)


def failed_before(driver: Driver, fingerprint: str, batch: int) -> bool:
    """Whether an earlier driver of the stream left with the same failure at the same batch."""
    for folder in driver.directory.parent.glob(f"{driver.stream}#*"):
        if folder == driver.directory:
            continue
        failure = _failure(folder / "exit.json")
        if (failure.get("fingerprint"), failure.get("batch")) == (fingerprint, batch):
            return True
    return False


def _failure(path: Path) -> dict[str, object]:
    try:
        return json.loads(path.read_text()).get("failure") or {}
    except (OSError, ValueError, AttributeError):
        return {}


def to_skip(driver: Driver) -> tuple[Skip, ...]:
    """What people decided to skip of the driver's stream. Waits for the database, and says so; a rehearsal has nothing to skip."""
    if driver.access.role != "writer":
        return ()
    while True:
        try:
            with connect(driver.runtime, "writer") as connection:
                found = tuple(skips.of(connection, driver.stream))
        except StateUnavailable as error:
            driver.wait("catalog", str(error))
        else:
            driver.board.wait_for(None)
            return found
