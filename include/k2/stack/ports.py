"""Which TCP ports of 127.0.0.1 the platform listens on."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterable, Mapping

from k2.registry.platform import Platform
from k2.stack.errors import K2Error

USUAL = {
    "postgres": 5432,
    "kafka": 9092,
    "kafka_controller": 9093,
    "schema_registry": 8085,
    "airflow": 8080,
    "exchange_simulator": 8090,
    "exchange_simulator_control": 8091,
    "slack_simulator": 8092,
}
FIRST_FEED = 9101
FIRST_PROXIED = 9201
ANY = range(20000, 30000)
"""Below the kernel's ephemeral range, so that no outgoing connection takes a port between choice and use."""


def usual_ports(platform: Platform) -> dict[str, int]:
    return USUAL | {f"feed_{exchange}": FIRST_FEED + i for i, exchange in enumerate(platform.exchanges)}


def proxied_ports(streams: Iterable[str]) -> dict[str, int]:
    """For each stream that reaches Kafka through the proxy: the broker's port for it and the proxy's; and the proxy's own."""
    numbers = itertools.count(FIRST_PROXIED)
    found = {f"{side}_{stream}": next(numbers) for stream in streams for side in ("kafka_behind", "kafka_proxy")}
    return found | {"kafka_proxy_control": next(numbers)} if found else {}


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(wanted: Mapping[str, int]) -> dict[str, int]:
    """Each wanted port if it is free, otherwise any free one."""
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        candidates = [port, *random.sample(ANY, 200)]
        free = (p for p in candidates if p not in chosen.values() and is_free(p))
        found = next(free, None)
        if found is None:
            raise K2Error(f"no free port was found for {name} between {ANY.start} and {ANY.stop}: end some of the programs that listen there")
        chosen[name] = found
    return chosen
