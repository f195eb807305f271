"""The registry as the running platform has it: the copy of platform.yaml that `./k2 up` made. What is edited changes nothing before it is applied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from k2.registry.platform import Platform, load_platform
from k2.registry.runtime import Runtime
from k2.stack import ports
from k2.stack.drivers import recorded_drivers
from k2.stack.errors import K2Error
from k2.stack.home import Home, read_json, write_atomically


def apply(home: Home, source: Path) -> None:
    """Make the file's content the platform's. What reads the registry must be started again after that. A second call changes nothing."""
    text = source.read_text()
    if not home.registry_file.is_file() or home.registry_file.read_text() != text:
        write_atomically(home.registry_file, text)
        load_platform.cache_clear()


def check_drivers(runtime: Runtime, platform: Platform) -> None:
    """Raises K2Error when a driver runs of a stream that the new registry does not have: nobody would look at it any more."""
    running = {tag.partition("#")[0] for tag in recorded_drivers(runtime)}
    if gone := sorted(running - set(platform.streams)):
        fix = "stop them through streams_control first, or declare them again"
        raise K2Error(f"platform.yaml no longer declares {', '.join(gone)}, whose driver runs: {fix}")


def check_ports(runtime: Runtime, platform: Platform, chosen: Mapping[str, int]) -> None:
    """Raises K2Error when the new registry has other exchanges: their ports are chosen when nothing runs."""
    if changed := sorted({*ports.usual_ports(platform), *ports.proxied_ports(runtime.kafka_of)} ^ set(chosen)):
        raise K2Error(f"platform.yaml has other exchanges than the running platform ({', '.join(changed)}): run ./k2 down, then ./k2 up")


def not_applied(home: Home) -> Path | None:
    """The registry that was applied last, if it has been edited or removed since then."""
    wanted = read_json(home.wanted_file)
    if wanted is None or not home.registry_file.is_file():
        return None
    source = Path(wanted["registry"])
    return None if source.is_file() and source.read_text() == home.registry_file.read_text() else source
