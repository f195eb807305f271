"""platform.yaml is refused with a sentence that names file, field, value and fix."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from k2.registry.files import REGISTRY
from k2.registry.platform import ConfigError, Platform, load_platform, parse_platform

DECLARED: dict[str, Any] = yaml.safe_load(REGISTRY.read_text())


def refusal(tmp_path: Path, *path: str, value: Any) -> str:
    """The error for the committed registry with one value changed; None as value removes the key."""
    raw = copy.deepcopy(DECLARED)
    place = raw
    for part in path[:-1]:
        place = place[part]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    file = tmp_path / "platform.yaml"
    file.write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as error:
        parse_platform(file)
    return str(error.value)


def test_the_committed_registry_is_valid() -> None:
    """The file in the tree loads, and the four streams of the platform are in it."""
    assert set(load_platform().streams) == {"bronze_binance", "bronze_kraken", "silver_binance", "silver_kraken"}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("streams", "bronze_binance", "trigger_seconds"), 0, ["platform.yaml", "streams.bronze_binance.trigger_seconds", "0", "greater than 0"]),
        (("streams", "bronze_binance", "triger_seconds"), 5, ["streams.bronze_binance.triger_seconds", "unknown key", "did you mean 'trigger_seconds'"]),
        (("streams", "silver_kraken", "checkpoint"), "silver-binance", ["streams.silver_kraken.checkpoint", "'silver-binance'", "silver_binance", "its own"]),
        (("streams", "silver_kraken", "checkpoint"), "../other", ["streams.silver_kraken.checkpoint", "../other", "folder name"]),
        (
            ("streams", "silver_kraken", "reads"),
            "bronze_krakn_trades",
            ["streams.silver_kraken.reads", "bronze_krakn_trades", "did you mean 'bronze_kraken_trades'"],
        ),
        (("streams", "silver_kraken", "reads"), "silver_dlq_trades", ["streams.silver_kraken.reads", "dlq table", "bronze one"]),
        (("streams", "silver_kraken", "reads"), None, ["streams.silver_kraken", "reads"]),
        (("streams", "bronze_kraken", "writes"), ["silver_dlq_trades"], ["streams.bronze_kraken.writes", "bronze"]),
        (("streams", "bronze_kraken", "exchange"), "krakn", ["streams.bronze_kraken.exchange", "'krakn'", "did you mean 'kraken'"]),
        (("streams", "bronze_kraken", "memory_mb"), 600, ["streams.bronze_kraken", "memory_mb must exceed heap_mb"]),
        (("spares", "memory_mb"), 700, ["spares.memory_mb", "700", "largest heap_mb"]),
        (("spares", "count"), -1, ["spares.count", "-1", "greater than or equal to 0"]),
        (("exchanges", "kraken", "topic"), "market.crypto.trades.binance.raw", ["exchanges.kraken.topic", "binance", "its own"]),
        (("exchanges", "kraken", "schema"), "missing.avsc", ["exchanges.kraken.schema", "missing.avsc", "include/config/avro"]),
        (("exchanges", "kraken", "feed", "url"), "http://x", ["exchanges.kraken.feed.url", "http://x"]),
        (("thresholds", "lag_rows"), {"yellow": 10, "red": 5}, ["thresholds.lag_rows", "red must not be below yellow"]),
        (("alerts", "routes", "page"), "oncall", ["alerts.routes.page", "oncall"]),
        (("restart",), None, ["restart", "missing"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, path: tuple[str, ...], value: Any, words: list[str]) -> None:
    """Each mistake is refused with the field, the value and what would be right."""
    message = refusal(tmp_path, *path, value=value)
    assert all(word in message for word in words), message


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """YAML would silently keep the last one."""
    file = tmp_path / "platform.yaml"
    file.write_text("catalog: {}\ncatalog: {}\n")
    with pytest.raises(ConfigError, match="stands twice"):
        parse_platform(file)


def test_a_missing_file_and_a_list_are_refused(tmp_path: Path) -> None:
    """Neither an absent nor a shapeless file reaches the models."""
    with pytest.raises(ConfigError, match="No such file .*: create it, or let K2_PLATFORM name another"):
        parse_platform(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        parse_platform(tmp_path / "list.yaml")


def test_a_profile_overrides_every_trigger() -> None:
    """The demo's short triggers come from its profile; an unknown profile is refused with the nearest name."""
    assert {s.trigger_seconds for s in load_platform("demo").streams.values()} == {5}
    with pytest.raises(ConfigError, match="did you mean 'demo'"):
        load_platform("dmo")


def test_relations_between_streams() -> None:
    """Silver knows the Bronze stream that feeds it, and the shared DLQ both of its writers."""
    platform: Platform = load_platform()
    assert platform.feeder_of("silver_kraken") == "bronze_kraken"
    assert platform.feeder_of("bronze_kraken") is None
    assert platform.writer_of("silver_dlq_trades") == ["silver_binance", "silver_kraken"]
