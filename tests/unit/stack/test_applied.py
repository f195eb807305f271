"""What of platform.yaml the running platform has, and what of a new one it can take over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2.processes import ProcessId
from k2.registry.platform import load_platform
from k2.registry.runtime import Runtime
from k2.stack import applied, ports
from k2.stack.errors import K2Error
from k2.stack.home import Home

PLATFORM = load_platform()


def test_what_is_edited_is_told_until_it_is_applied(home: Home, tmp_path: Path) -> None:
    """A change of a byte, or a file that is gone; before the first start there is nothing to tell."""
    source = tmp_path / "platform.yaml"
    source.write_text("streams: {}")
    assert applied.not_applied(home) is None
    home.wanted_file.write_text(json.dumps({"registry": str(source)}))
    applied.apply(home, source)
    assert applied.not_applied(home) is None
    source.write_text("streams: {} ")
    assert applied.not_applied(home) == source and home.registry_file.read_text() == "streams: {}"
    applied.apply(home, source)
    assert applied.not_applied(home) is None
    source.unlink()
    assert applied.not_applied(home) == source


def test_a_stream_with_a_driver_cannot_leave_the_registry(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would look at it any more, and its checkpoint could be given to another."""
    monkeypatch.setattr(applied, "recorded_drivers", lambda _: {"bronze_binance#3": ProcessId(1, 1), "silver_kraken#1": ProcessId(2, 1)})
    applied.check_drivers(runtime, PLATFORM)
    fewer = PLATFORM.model_copy(update={"streams": {n: s for n, s in PLATFORM.streams.items() if n != "silver_kraken"}})
    with pytest.raises(K2Error, match="no longer declares silver_kraken, whose driver runs: stop them through streams_control first"):
        applied.check_drivers(runtime, fewer)


def test_other_exchanges_need_a_stop(runtime: Runtime) -> None:
    """One that is new and one that is gone; the ports of a proxied stream are the platform's own."""
    proxied = runtime.model_copy(update={"kafka_of": {"bronze_kraken": "127.0.0.1:9202"}})
    applied.check_ports(proxied, PLATFORM, ports.usual_ports(PLATFORM) | ports.proxied_ports(["bronze_kraken"]))
    other = PLATFORM.model_copy(update={"exchanges": {"binance": PLATFORM.exchanges["binance"], "okx": PLATFORM.exchanges["kraken"]}})
    with pytest.raises(K2Error, match=r"other exchanges than the running platform \(feed_kraken, feed_okx\): run ./k2 down, then ./k2 up"):
        applied.check_ports(runtime, other, ports.usual_ports(PLATFORM))
