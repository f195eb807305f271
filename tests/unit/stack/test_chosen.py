"""The platform and the streams that a command is about."""

from __future__ import annotations

import pytest

from k2.registry.runtime import Runtime
from k2.stack.chosen import chosen
from k2.stack.errors import K2Error
from k2.stack.home import Home


@pytest.fixture(autouse=True)
def current(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_HOME", str(home.path))


def test_before_the_first_start_there_is_nothing_to_look_at(home: Home) -> None:
    """The error names the folder and what to do."""
    with pytest.raises(K2Error, match=f"{home.path} was never started: start it with ./k2 up"):
        chosen(None)


def test_one_stream_or_all_of_them(home: Home, runtime: Runtime) -> None:
    """A stream that is not declared is refused with the names of those that are."""
    home.runtime_file.write_text(runtime.model_dump_json())
    assert chosen(None) == (runtime, ["bronze_binance", "bronze_kraken", "silver_binance", "silver_kraken"])
    assert chosen("silver_kraken") == (runtime, ["silver_kraken"])
    with pytest.raises(K2Error, match="stream 'gold' is not declared: use one of bronze_binance, "):
        chosen("gold")
