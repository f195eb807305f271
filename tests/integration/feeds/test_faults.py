"""Each thing that an exchange can do to a feed, and what the feed makes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from k2.feeds.backoff import GaveUp


def test_whole_and_orderly_end(lab: Any, tmp_path: Path, protocol: str) -> None:
    """A feed that is stopped while trades flow has every trade up to its last moment, and asked for nothing after it."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = exchanges.listen(protocol)
            await lab.until(lambda: len(feed.sink.records) > 300)
            assert feed.metric("connection_status") == 1
            # What has come but is not handed over yet when the feed is stopped must not be lost.
            feed.sink.open.clear()
            await asyncio.sleep(0.5)
            ending = asyncio.create_task(feed.end())
            await asyncio.sleep(0.1)
            feed.sink.open.set()
            await ending
            assert feed.metric("connection_status") == 0
            await lab.until(lambda: any(line.get("event") == "closed" for line in exchanges.truth(feed.exchange)))
            await asyncio.sleep(0.2)
            result = exchanges.audit(feed)
        assert result.whole, result
        assert (result.repeated, result.gaps) == (0, [])
        assert result.expected == len(feed.sink.records)
        assert all(record["message_index"] >= 0 for record in feed.sink.records if "message_index" in record)

    asyncio.run(scene())


def test_drop(lab: Any, tmp_path: Path, protocol: str) -> None:
    """A cut connection is opened again; what was sent in between is a gap, and the only one of each symbol."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = exchanges.listen(protocol)
            await lab.until(lambda: len(feed.sink.records) > 50)
            await exchanges.fault("refuse", feed, seconds=0.7)
            await exchanges.fault("drop", feed)
            count = len(feed.sink.records)
            await lab.until(lambda: feed.metric("connection_status") == 1 and len(feed.sink.records) > count + 100)
            await feed.end()
            result = exchanges.audit(feed)
        assert result.changed_count == result.unexpected_count == result.repeated == 0
        assert result.missing == sum(gap.trades for gap in result.gaps) > 0
        assert max(Counter(gap.symbol for gap in result.gaps).values()) == 1 or protocol == "kraken_v1"
        assert result.faults == {"drop": 1, "refuse": 1}
        if protocol != "kraken_v1":
            assert all(gap.last_id - gap.first_id + 1 == gap.trades for gap in result.gaps)

    asyncio.run(scene())


def test_silence_is_noticed(lab: Any, tmp_path: Path, protocol: str) -> None:
    """When nothing comes for stale_seconds, heartbeats included, the feed connects again."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = exchanges.listen(protocol, stale_seconds=0.8)
            await lab.until(lambda: len(feed.sink.records) > 20)
            await exchanges.fault("silent", feed, seconds=1.2)
            await lab.until(lambda: feed.metric("reconnects_total") >= 1)
            count = len(feed.sink.records)
            await lab.until(lambda: len(feed.sink.records) > count + 20)
            await feed.end()
            result = exchanges.audit(feed)
        assert result.missing > 20
        assert result.unexpected_count == result.changed_count == 0
        closes = [line for line in exchanges.truth(feed.exchange) if line.get("event") == "closed"]
        assert (closes[0]["by"], closes[0]["code"]) == ("client", 4000)

    asyncio.run(scene())


def test_heartbeats_keep_a_quiet_market_alive(lab: Any, tmp_path: Path) -> None:
    """Without trades heartbeats are enough; without heartbeats too, the feeds connect again."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path, rate="0") as exchanges:
            feeds = [exchanges.listen(protocol, stale_seconds=3) for protocol in ("kraken_v1", "kraken_v2")]
            await asyncio.sleep(4)
            for feed in feeds:
                assert feed.metric("reconnects_total") == 0
                assert feed.metrics.registry.get_sample_value("k2_kraken_events_total", {"event": "heartbeat"}) >= 1
            await exchanges.fault("stop_heartbeats", feeds[0], seconds=60)
            await lab.until(lambda: all(feed.metric("reconnects_total") >= 1 for feed in feeds))
            for feed in feeds:
                await feed.end()

    asyncio.run(scene())


CHANGES = {"binance": ("add_fields", "order_ids", "futures"), "kraken_v1": ("add_fields",), "kraken_v2": ("add_fields",)}


def test_odd_frames_cost_no_trade(lab: Any, tmp_path: Path, protocol: str) -> None:
    """Broken frames, messages sent twice, an unknown pair and changed shapes: each is counted, and every trade arrives."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = exchanges.listen(protocol)

            async def some_more() -> None:
                count = len(feed.sink.records)
                await lab.until(lambda: len(feed.sink.records) > count + 60)

            await some_more()
            await exchanges.fault("malformed", feed, n=90)
            await some_more()
            await exchanges.fault("repeat", feed, n=7)
            await exchanges.fault("unknown_pair", feed, n=3)
            for change in CHANGES[protocol]:
                await exchanges.fault("schema_change", feed, change=change, seconds=5)
                await some_more()
            await feed.end()
            truth, result = exchanges.truth(feed.exchange), exchanges.audit(feed)
        assert result.whole, result
        assert 70 <= feed.metric("malformed_total") <= 90
        (repeat,) = [line for line in truth if line.get("kind") == "repeat"]
        assert len(repeat["messages"]) == 7
        assert result.repeated == sum("event" not in line and line["message"] in repeat["messages"] for line in truth)
        unknown = "ZZZUSDT" if protocol == "binance" else "ZZZ/USD"
        assert Counter(trade.symbol for trade in feed.sink.trades)[unknown] == feed.metric("unexpected_symbol_trades_total") == 3
        assert feed.metric("records_rejected_total") == feed.metric("reconnects_total") == 0
        if protocol == "binance":
            assert {record["is_best_match"] for record in feed.sink.records} == {True, None}

    asyncio.run(scene())


def test_gives_up(lab: Any, protocol: str) -> None:
    """With nobody at the address, the feed gives up after its attempts."""

    async def scene() -> None:
        quick = {"first_seconds": 0.01, "cap_seconds": 0.02, "attempts": 4}
        feed = lab.Listening(protocol, f"ws://127.0.0.1:{lab.free_port()}", reconnect=quick)
        with pytest.raises(GaveUp):
            await asyncio.wait_for(feed.task, 10)
        assert feed.metric("reconnects_total") == 3

    asyncio.run(scene())


def test_every_subscription_refused(lab: Any, tmp_path: Path) -> None:
    """A feed all of whose pairs are refused gives up, although heartbeats would have kept it company for ever."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = exchanges.listen("kraken_v2", symbols=("XBT/USD",), reconnect={"first_seconds": 0.01, "cap_seconds": 0.02, "attempts": 2})
            with pytest.raises(GaveUp):
                await asyncio.wait_for(feed.task, 10)
            assert feed.metric("subscriptions_refused_total") == 2

    asyncio.run(scene())


def test_one_subscription_refused(lab: Any, tmp_path: Path) -> None:
    """A refused pair is counted, and the other one's trades arrive."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = exchanges.listen("kraken_v2", symbols=("XBT/USD", "ETH/USD"))
            await lab.until(lambda: len(feed.sink.records) > 20)
            await feed.end()
            assert feed.metric("subscriptions_refused_total") == 1
            assert {trade.symbol for trade in feed.sink.trades} == {"ETH/USD"}

    asyncio.run(scene())


def test_failover(lab: Any, tmp_path: Path) -> None:
    """After a failed attempt the other address is used."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = lab.Listening("kraken_v2", f"ws://127.0.0.1:{lab.free_port()}", failover_url=exchanges.url("kraken_v2"))
            await lab.until(lambda: len(feed.sink.records) > 20)
            assert feed.metric("reconnects_total") == 1
            await feed.end()

    asyncio.run(scene())


def test_rotation_misses_nothing(lab: Any, tmp_path: Path, protocol: str) -> None:
    """Connections replaced at their age overlap: no trade is missed, and what both brought is a repeat."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = exchanges.listen(protocol, rotate_hours=0.5 / 3600)
            await lab.until(lambda: feed.metric("reconnects_total") >= 3)
            await feed.end()
            await asyncio.sleep(0.2)
            result = exchanges.audit(feed)
        assert result.whole, result

    asyncio.run(scene())


def test_rotation_keeps_the_old_connection_when_the_new_one_fails(lab: Any, tmp_path: Path) -> None:
    """While the exchange refuses new connections, a rotation leaves the old one in place."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            feed = exchanges.listen("binance", rotate_hours=0.8 / 3600)
            await lab.until(lambda: len(feed.sink.records) > 20)
            await exchanges.fault("refuse", feed, seconds=30)
            await lab.until(lambda: feed.metric("reconnects_total") >= 1)
            count = len(feed.sink.records)
            await lab.until(lambda: len(feed.sink.records) > count + 100)
            await feed.end()
            await asyncio.sleep(0.2)
            assert exchanges.audit(feed).whole

    asyncio.run(scene())


def test_nobody_waits_for_a_listener(lab: Any, tmp_path: Path) -> None:
    """The market runs before anybody listens; those trades are in the truth and are no gap."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            await lab.until(lambda: len(exchanges.truth("binance")) > 100)
            feed = exchanges.listen("binance")
            await lab.until(lambda: len(feed.sink.records) > 20)
            await feed.end()
            result = exchanges.audit(feed)
        assert result.whole
        assert sum(result.not_wanted.values()) > 90

    asyncio.run(scene())
