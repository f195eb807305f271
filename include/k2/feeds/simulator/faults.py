"""The ways to hurt an exchange on demand, as `POST /fault` takes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from k2.feeds.simulator.dialect import Change

Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=1000)]


class _Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    exchange: str


class Drop(_Fault):
    """Every connection is cut, without a close."""

    kind: Literal["drop"]


class Silent(_Fault):
    """Connections stay open but carry nothing, not even heartbeats; the market goes on."""

    kind: Literal["silent"]
    seconds: Seconds = 10.0


class StopHeartbeats(_Fault):
    kind: Literal["stop_heartbeats"]
    seconds: Seconds = 10.0


class Refuse(_Fault):
    """New connections are answered with 503; those that exist stay."""

    kind: Literal["refuse"]
    seconds: Seconds = 10.0


class Malformed(_Fault):
    """Frames that are not what the protocol sends, between the real ones."""

    kind: Literal["malformed"]
    n: Count = 1


class Repeat(_Fault):
    """The last messages once more."""

    kind: Literal["repeat"]
    n: Count = 1


class UnknownPair(_Fault):
    """Trades of a pair that nobody asked for, sent to everybody."""

    kind: Literal["unknown_pair"]
    n: Count = 1


class SchemaChange(_Fault):
    """The messages' shape changes for a while."""

    kind: Literal["schema_change"]
    change: Change = Change.ADD_FIELDS
    seconds: Seconds = 10.0


Fault = Drop | Silent | StopHeartbeats | Refuse | Malformed | Repeat | UnknownPair | SchemaChange
FAULT: TypeAdapter[Fault] = TypeAdapter(Annotated[Fault, Field(discriminator="kind")])

UNKNOWN_PAIR = {"binance": "ZZZUSDT", "kraken": "ZZZ/USD"}
"""A pair that no book has, in each exchange's own spelling."""


def malformed_frames(good: str, n: int) -> list[tuple[bytes, bool]]:
    """`n` broken frames made of a good one, as (data, whether it goes as a text frame): nine kinds in turn."""
    data = good.encode()
    kinds = [
        (data[: len(data) // 2], True),
        (b"", True),
        (b"<html>502 Bad Gateway</html>", True),
        (b"null", True),
        (b'[{"channel":"trade"}]', True),
        (b'{"stream":"btcusdt@trade","data":[1,2,3]}', True),
        (b'{"channel":"trade","data":"none","price":NaN}', True),
        (b"[" * 5000, True),
        (data[:8] + b"\xff\xfe" + data[8:], False),
    ]
    return [kinds[i % len(kinds)] for i in range(n)]
