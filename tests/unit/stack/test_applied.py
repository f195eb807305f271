"""What of platform.yaml the running platform has, and what of a new one it can take over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2.processes import ProcessId
from k2.registry.files import REGISTRY
from k2.registry.made_of import fingerprint
from k2.registry.platform import load_platform
from k2.registry.runtime import Runtime
from k2.stack import applied, ports
from k2.stack.errors import K2Error
from k2.stack.home import Home

PLATFORM = load_platform()


def test_what_is_edited_is_told_until_it_is_applied(home: Home, runtime: Runtime, tmp_path: Path) -> None:
    """A change of a byte, a file that is gone, and other code."""
    source = tmp_path / "platform.yaml"
    source.write_text("streams: {}")
    home.wanted_file.write_text(json.dumps({"registry": str(source)}))
    applied.apply(home, "streams: {}")
    assert applied.not_applied(home, runtime) == ""
    source.write_text("streams: {} ")
    assert applied.not_applied(home, runtime) == f"{source} has changed since it was applied" and home.registry_file.read_text() == "streams: {}"
    applied.apply(home, "streams: {} ")
    assert applied.not_applied(home, runtime) == ""
    home.state_file.write_text(json.dumps({"made_of": "older"}))
    assert applied.not_applied(home, runtime) == "The code has changed since it was applied"
    home.state_file.write_text(json.dumps({"made_of": fingerprint(runtime)}))
    assert applied.not_applied(home, runtime) == ""
    source.unlink()
    assert applied.not_applied(home, runtime) == f"{source} has changed since it was applied"


def test_the_registry_of_the_last_time_is_the_next_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless K2_PLATFORM names one; at first, or where none was named, it is the project's."""
    assert applied.source(home) == REGISTRY
    home.wanted_file.write_text(json.dumps({"registry": None}))
    assert applied.source(home) == REGISTRY
    home.wanted_file.write_text(json.dumps({"registry": "/srv/ours.yaml"}))
    assert applied.source(home) == Path("/srv/ours.yaml")
    monkeypatch.setenv("K2_PLATFORM", "/srv/other.yaml")
    assert applied.source(home) == Path("/srv/other.yaml")


def test_a_stream_with_a_driver_cannot_leave_the_registry(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would look at it any more, and its checkpoint could be given to another."""
    monkeypatch.setattr(applied, "recorded_drivers", lambda _: {"bronze_binance#3": ProcessId(1, 1), "silver_kraken#1": ProcessId(2, 1)})
    applied.check_drivers(runtime, PLATFORM)
    fewer = PLATFORM.model_copy(update={"streams": {n: s for n, s in PLATFORM.streams.items() if n != "silver_kraken"}})
    with pytest.raises(K2Error, match="no longer declares silver_kraken, whose driver runs: stop them through streams_control first"):
        applied.check_drivers(runtime, fewer)


def test_other_exchanges_need_a_stop(runtime: Runtime) -> None:
    """One that is new and one that is gone, and one that the simulator must serve elsewhere; the ports of a proxied stream are the platform's own."""
    proxied = runtime.model_copy(update={"kafka_of": {"bronze_kraken": "127.0.0.1:9202"}})
    applied.check_exchanges(proxied, PLATFORM, ports.usual_ports(PLATFORM) | ports.proxied_ports(["bronze_kraken"]))
    other = PLATFORM.model_copy(update={"exchanges": {"binance": PLATFORM.exchanges["binance"], "okx": PLATFORM.exchanges["kraken"]}})
    with pytest.raises(K2Error, match=r"other exchanges than the running platform \(feed_kraken, feed_okx\): run ./k2 down, then ./k2 up"):
        applied.check_exchanges(runtime, other, ports.usual_ports(PLATFORM))
    feed = PLATFORM.exchanges["kraken"].feed.model_copy(update={"url": "wss://ws.kraken.com"})
    moved = PLATFORM.model_copy(update={"exchanges": PLATFORM.exchanges | {"kraken": PLATFORM.exchanges["kraken"].model_copy(update={"feed": feed})}})
    applied.check_exchanges(runtime, moved, ports.usual_ports(PLATFORM))
    simulated = runtime.model_copy(update={"feed_urls": {"kraken": "ws://127.0.0.1:8090/v2"}})
    with pytest.raises(K2Error, match=r"other exchanges than the running platform \(exchanges.kraken.feed.url\)"):
        applied.check_exchanges(simulated, moved, ports.usual_ports(PLATFORM))
