"""What a feed handler must know of an exchange's websocket protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn


class MalformedFrame(ValueError):
    """A frame that is not what the protocol sends. The message says why."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one frame says: trades as records of the exchange's Avro schema, or the name of an event."""

    records: tuple[dict[str, Any], ...] = ()
    event: str | None = None
    refused: str | None = None
    """The exchange's own words, when the event refuses a subscription."""
    problems: tuple[str, ...] = ()
    """One sentence per trade of the frame that could not be read; the frame's other trades are in `records`."""


@dataclass(frozen=True)
class Protocol:
    """One dialect. Nothing here does I/O.

    `url(root, symbols)` is the address to connect to, `hello(symbols)` the frames to send first, and
    `parse(text, received_us)` reads one frame; it raises MalformedFrame and nothing else.
    """

    url: Callable[[str, Sequence[str]], str]
    hello: Callable[[Sequence[str]], list[str]]
    parse: Callable[[str, int], Parsed]
    key: str
    """The field of a record that is the Kafka key."""


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_float=str, parse_constant=_no_constant)


def loads(text: str) -> Any:
    """JSON in which no number passes through a float: those with a point or an exponent stay text."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedFrame(f"not JSON: {error}") from None


def each_trade(trades: Sequence[Any], record: Callable[[int, Any], dict[str, Any]]) -> Parsed:
    """Every trade of a message by `record(place, trade)`; one that it refuses with MalformedFrame does not cost the others."""
    records, problems = [], []
    for index, trade in enumerate(trades):
        try:
            records.append(record(index, trade))
        except MalformedFrame as problem:
            problems.append(f"trade {index}: {problem}")
    return Parsed(records=tuple(records), problems=tuple(problems))


def number_text(value: Any) -> Any:
    """A JSON number as its text. Anything else is returned as it is, for the schema to judge."""
    return str(value) if type(value) is int else value
