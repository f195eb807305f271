"""The registry as the running platform has it: the copy of platform.yaml that `./k2 up` made. What is edited changes nothing before it is applied."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from k2.registry.files import REGISTRY, registry_file
from k2.registry.made_of import fingerprint
from k2.registry.platform import Platform, load_platform
from k2.registry.runtime import Runtime
from k2.stack import ports
from k2.stack.drivers import recorded_drivers
from k2.stack.errors import K2Error
from k2.stack.home import Home, read_json, write_atomically


def source(home: Home) -> Path:
    """The file that the next `up` applies: `K2_PLATFORM`, without it the one of the last time, by default the project's own."""
    if "K2_PLATFORM" in os.environ:
        return registry_file().resolve()
    last = (read_json(home.wanted_file) or {}).get("registry")
    return Path(last) if last else REGISTRY


def apply(home: Home, text: str) -> None:
    """Make a registry's text the platform's. What reads it must be started again after that. A second call changes nothing."""
    if not home.registry_file.is_file() or home.registry_file.read_text() != text:
        write_atomically(home.registry_file, text)
        load_platform.cache_clear()


def check_drivers(runtime: Runtime, platform: Platform) -> None:
    """Raises K2Error when a driver runs of a stream that the new registry does not have: nobody would look at it any more."""
    running = {tag.partition("#")[0] for tag in recorded_drivers(runtime)}
    if gone := sorted(running - set(platform.streams)):
        fix = "stop them through streams_control first, or declare them again"
        raise K2Error(f"platform.yaml no longer declares {', '.join(gone)}, whose driver runs: {fix}")


def check_exchanges(runtime: Runtime, platform: Platform, chosen: Mapping[str, int]) -> None:
    """Raises K2Error when the new registry has other exchanges: their ports, and their simulator's addresses, are chosen when nothing runs."""
    changed = {*ports.usual_ports(platform), *ports.proxied_ports(runtime.kafka_of)} ^ set(chosen)
    if not changed and runtime.feed_urls:
        before = runtime.platform.exchanges
        changed = {f"exchanges.{name}.feed.url" for name, exchange in platform.exchanges.items() if exchange.feed.url != before[name].feed.url}
    if changed:
        raise K2Error(f"platform.yaml has other exchanges than the running platform ({', '.join(sorted(changed))}): run ./k2 down, then ./k2 up")


def not_applied(home: Home, runtime: Runtime) -> str:
    """What has changed since it was applied, for `status`; empty when nothing has."""
    file = source(home)
    if not file.is_file() or file.read_text() != home.registry_file.read_text():
        return f"{file} has changed since it was applied"
    made_of = (read_json(home.state_file) or {}).get("made_of", "")
    return "The code has changed since it was applied" if made_of and made_of != fingerprint(runtime) else ""
