"""Choice of ports: the usual ones where they are free."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from k2.registry.platform import load_platform
from k2.stack import ports


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens, on all addresses."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_not_free(taken: int) -> None:
    """Also when the other program listens on all addresses."""
    assert not ports.is_free(taken)


def test_a_taken_port_is_replaced(taken: int) -> None:
    """The wanted one is in use, so any free one is chosen."""
    chosen = ports.choose({"kafka": taken})["kafka"]
    assert chosen != taken
    assert chosen in ports.ANY
    assert ports.is_free(chosen)


def test_one_port_is_never_given_twice() -> None:
    """Two services that want the same port get two."""
    free = ports.choose({"a": 1})["a"] if not ports.is_free(1) else 1
    chosen = ports.choose({"a": free, "b": free})
    assert chosen["a"] == free
    assert chosen["b"] != free


def test_every_exchange_has_a_metrics_port() -> None:
    """A third exchange in the registry gets its own port without another line of code."""
    usual = ports.usual_ports(load_platform())
    assert len(set(usual.values())) == len(usual)
    assert {f"feed_{exchange}" for exchange in load_platform().exchanges} <= set(usual)
