"""How a feed handler ends, by what ended it."""

from __future__ import annotations

import asyncio
from unittest.mock import create_autospec

import pytest

from k2.feeds import main
from k2.feeds.backoff import GaveUp
from k2.feeds.client import FeedClient
from k2.feeds.main import FeedExit
from k2.feeds.sink import KafkaSink, SinkFailed, SinkUnavailable
from k2.registry.platform import load_platform
from k2.registry.runtime import Runtime


@pytest.mark.parametrize(
    ("prepared", "ran", "expected"),
    [
        (None, None, FeedExit.STOPPED),
        (SinkUnavailable("no topic"), None, FeedExit.UNAVAILABLE),
        (None, GaveUp("10 connections"), FeedExit.GAVE_UP),
        (None, SinkFailed("fenced"), FeedExit.PRODUCER_FAILED),
    ],
)
def test_each_end_has_its_code(prepared: Exception | None, ran: Exception | None, expected: FeedExit) -> None:
    """An orderly stop is 0; every other end has a code of its own."""

    async def scene() -> FeedExit:
        client, sink = create_autospec(FeedClient, instance=True), create_autospec(KafkaSink, instance=True)
        sink.failure = asyncio.get_running_loop().create_future()
        sink.prepare.side_effect, client.run.side_effect = prepared, ran
        return await main._until_end(client, sink, asyncio.Event())

    assert asyncio.run(scene()) is expected


def test_a_fatal_producer_error_ends_a_quiet_feed() -> None:
    """The producer can fail while no frame arrives: the feed ends at once and does not wait for the next trade."""

    async def scene() -> FeedExit:
        client, sink = create_autospec(FeedClient, instance=True), create_autospec(KafkaSink, instance=True)
        sink.failure = asyncio.get_running_loop().create_future()

        async def listen_for_ever(stop: asyncio.Event) -> None:
            await asyncio.Event().wait()

        client.run.side_effect = listen_for_ever
        asyncio.get_running_loop().call_later(0.01, sink.failure.set_result, "Local: Fatal error")
        return await asyncio.wait_for(main._until_end(client, sink, asyncio.Event()), 5)

    assert asyncio.run(scene()) is FeedExit.PRODUCER_FAILED


def test_the_address_is_one_setting() -> None:
    """The runtime's address replaces the registry's and has no failover; without it both of the registry's are used."""
    feed = load_platform().exchanges["binance"].feed
    runtime = create_autospec(Runtime, instance=True)
    runtime.feed_urls = {"kraken": "ws://127.0.0.1:1/v2"}
    assert main.addresses("binance", feed, runtime) == (feed.url, feed.failover_url)
    runtime.feed_urls = {"binance": "ws://127.0.0.1:1"}
    assert main.addresses("binance", feed, runtime) == ("ws://127.0.0.1:1", None)
