"""The protocols by the name that platform.yaml gives them in `feed.protocol`."""

from __future__ import annotations

from k2.feeds import binance, kraken_v1, kraken_v2
from k2.feeds.protocol import Protocol

PROTOCOLS: dict[str, Protocol] = {"binance": binance.PROTOCOL, "kraken_v1": kraken_v1.PROTOCOL, "kraken_v2": kraken_v2.PROTOCOL}
