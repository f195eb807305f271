"""What the supervisor needs to know of one process of the stack."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from signal import SIGTERM, Signals

import httpx

Check = Callable[[datetime], Awaitable[None]]
"""Raises Unhealthy with the reason; is given when the process was started."""


class Unhealthy(RuntimeError):
    """A service does not answer as it should. The message says what was seen."""


@dataclass(frozen=True)
class Service:
    name: str
    argv: tuple[str, ...]
    healthy: Check | None = None
    """None for a task: a command that is done when it has exited with 0."""
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    """Ports it listens on: it is not started while another program has one of them."""
    prepare: Callable[[], None] | None = None
    """Runs before each start; must be idempotent."""
    setup: Callable[[], None] | None = None
    """Runs once it is healthy and before anything that needs it; must be idempotent."""
    stop_after: tuple[str, ...] = ()
    """Services that must be gone before this one is stopped, besides those that need it."""
    before_stop: Callable[[], None] | None = None
    stateless: bool = False
    """It may be started again at any time: it is, when the code or the configuration has changed since its start."""
    stop_signal: Signals = SIGTERM
    grace_seconds: float = 10

    @property
    def is_task(self) -> bool:
        return self.healthy is None


DROP_ROOT = (
    *("setpriv", "--securebits=+no_setuid_fixup", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
"""PostgreSQL refuses to run as root. The capability lets its user reach files below a private home folder, and the
secure bit keeps access(2), with which PostgreSQL looks for its own programs, from ignoring that capability."""


def unprivileged(*argv: str) -> tuple[str, ...]:
    return (*DROP_ROOT, *argv) if os.geteuid() == 0 else argv


def tcp(port: int) -> Check:
    """Healthy when something accepts connections on 127.0.0.1:port."""

    async def check(_: datetime) -> None:
        try:
            _reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), timeout=5)
        except (OSError, TimeoutError) as error:
            raise Unhealthy(f"port {port}: {error or 'no answer in 5 s'}") from error
        writer.close()

    return check


def unix_socket(path: Path) -> Check:
    """Healthy when something accepts connections on the socket."""

    async def check(_: datetime) -> None:
        try:
            _reader, writer = await asyncio.open_unix_connection(str(path))
        except OSError as error:
            raise Unhealthy(f"{path.name}: {error.strerror}") from error
        writer.close()

    return check


def http(url: str) -> Check:
    """Healthy when a GET of `url` answers 2xx."""

    async def check(_: datetime) -> None:
        try:
            # Plain HTTP on the loopback: without `verify=False` every check would load the list of CAs, 40 ms of processor time.
            async with httpx.AsyncClient(timeout=5, trust_env=False, verify=False) as client:
                (await client.get(url)).raise_for_status()
        except httpx.HTTPError as error:
            raise Unhealthy(f"{url}: {error or type(error).__name__}") from error

    return check
