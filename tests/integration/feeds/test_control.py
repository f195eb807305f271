"""The simulator as its users see it: control endpoint, snapshots, restarts, replays."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from k2.feeds.simulator.recordings import read_recordings


def test_state_and_summary(lab: Any, tmp_path: Path) -> None:
    """The state names rate, pattern and sessions; the summary counts what the truth holds."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path, rate="binance=500") as exchanges:
            feed = exchanges.listen("binance")
            await lab.until(lambda: len(feed.sink.records) > 50)
            await exchanges.post("/pause")
            state = (await exchanges.get("/state"))["binance"]
            assert (state["market"], state["rate"], state["pattern"]) == ("paused", 500, "steady")
            assert state["sessions"] == [{"session": 1, "protocol": "binance", "symbols": ["BNBUSDT", "BTCUSDT", "ETHUSDT"]}]
            summary = (await exchanges.get("/truth/summary"))["binance"]
            trades = [line for line in exchanges.truth("binance") if "event" not in line]
            assert summary["trades"] == summary["messages"] == len(trades)
            assert {s: b["trades"] for s, b in summary["books"].items() if b["trades"]} == Counter(line["symbol"] for line in trades)
            await exchanges.post("/rate", exchange="binance", rate=50, pattern="spike")
            state = (await exchanges.get("/state"))["binance"]
            assert (state["rate"], state["pattern"]) == (50, "spike")
            await feed.end()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/fault", {"exchange": "binance", "kind": "explode"}, "explode"),
        ("/fault", {"exchange": "bitmex", "kind": "drop"}, "use one of binance, kraken"),
        ("/fault", {"exchange": "kraken", "kind": "schema_change", "change": "futures"}, "use one of add_fields"),
        ("/fault", {"exchange": "kraken", "kind": "silent", "seconds": -1}, "seconds"),
        ("/fault", {"exchange": "kraken", "kind": "drop", "n": 3}, "n"),
        ("/rate", {"rate": "fast"}, "'fast'"),
        ("/rate", {"pattern": "wild"}, "steady, gradual, spike"),
        ("/pause", {"exchange": "bitmex"}, "bitmex"),
        ("/resume", [1], "JSON object"),
    ],
)
def test_mistakes_are_explained(lab: Any, tmp_path: Path, path: str, body: Any, words: str) -> None:
    """A request that cannot be done is a 400 that names the value and what is possible."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path, rate="0") as exchanges:
            answer = await exchanges.control.post(path, json=body)
            assert answer.status_code == 400
            assert words in answer.json()["error"]

    asyncio.run(scene())


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/v2", 503)])
def test_refusals(lab: Any, tmp_path: Path, path: str, status: int) -> None:
    """A path that no exchange speaks at is 404; a refused connection 503."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path, rate="0") as exchanges:
            await exchanges.post("/fault", exchange="kraken", kind="refuse", seconds=5)
            async with httpx.AsyncClient(trust_env=False) as client:
                upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
                answer = await client.get(f"http://127.0.0.1:{exchanges.port}{path}", headers=upgrade)
            assert answer.status_code == status

    asyncio.run(scene())


async def _hear(url: str, hello: dict[str, Any], frames: int) -> list[Any]:
    async with connect(url, proxy=None) as websocket:
        await websocket.send(json.dumps(hello))
        return [json.loads(await asyncio.wait_for(websocket.recv(), 5)) for _ in range(frames)]


@pytest.mark.parametrize("wanted", [True, False])
def test_snapshot_on_subscribe(lab: Any, tmp_path: Path, wanted: bool) -> None:
    """v2 sends its latest trades on subscribing unless they are declined."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path) as exchanges:
            await lab.until(lambda: len(exchanges.truth("kraken")) > 100)
            await exchanges.post("/pause")
            hello = {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": wanted}}
            status, answer, third = await _hear(f"ws://127.0.0.1:{exchanges.port}/v2", hello, 3)
            assert (status["channel"], answer["success"]) == ("status", True)
            if not wanted:
                assert third == {"channel": "heartbeat"}
                return
            sent = [line["id"] for line in exchanges.truth("kraken") if line.get("symbol") == "BTC/USD"]
            assert third["type"] == "snapshot"
            assert [trade["trade_id"] for trade in third["data"]] == sent[-50:]

    asyncio.run(scene())


def test_v1_snapshot_is_a_choice(lab: Any, tmp_path: Path) -> None:
    """With --v1-snapshot, v1 sends its latest trades on subscribing as one message."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path, "--v1-snapshot") as exchanges:
            await lab.until(lambda: len(exchanges.truth("kraken")) > 50)
            await exchanges.post("/pause")
            hello = {"event": "subscribe", "pair": ["XBT/USD"], "subscription": {"name": "trade"}}
            _, answer, snapshot = await _hear(f"ws://127.0.0.1:{exchanges.port}/kraken", hello, 3)
            assert answer["status"] == "subscribed"
            assert len(snapshot[1]) == sum(line.get("symbol") == "BTC/USD" for line in exchanges.truth("kraken"))

    asyncio.run(scene())


def test_ids_go_on_after_a_restart(lab: Any, tmp_path: Path) -> None:
    """A simulator started again on the same home goes on with ids and session numbers, and a feed can tell no difference."""

    async def scene() -> None:
        seen = []
        for _ in range(2):
            async with lab.exchanges(tmp_path) as exchanges:
                feed = exchanges.listen("kraken_v2")
                await lab.until(lambda: len(feed.sink.records) > 50)  # noqa: B023 - awaited at once
                await feed.end()
                seen += feed.sink.trades
        lines = exchanges.truth("kraken")
        for symbol in ("BTC/USD", "ETH/USD"):
            ids = [line["id"] for line in lines if line.get("symbol") == symbol]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert len({(t.symbol, t.id) for t in seen}) == len(seen)
        assert [line["session"] for line in lines if line.get("event") == "opened"] == [1, 2]

    asyncio.run(scene())


def test_recordings_arrive_whole_by_v1(lab: Any, tmp_path: Path, recordings_folder: Path) -> None:
    """Every trade of every message recorded of Kraken arrives once, with its recorded content, also without ids."""

    async def scene() -> None:
        async with lab.exchanges(tmp_path, "--replay", str(recordings_folder), "--speed", "2000") as exchanges:
            feed = exchanges.listen("kraken_v1", symbols=("BTC/USD", "DASH/EUR", "ALGO/BTC"))

            async def finished() -> bool:
                return (await exchanges.get("/state"))[feed.exchange]["market"] == "finished"

            await lab.until(finished, 60)
            await feed.end()
            result = exchanges.audit(feed)
            (shifts,) = [line["shifts_us"] for line in exchanges.truth(feed.exchange) if line.get("event") == "replay"]
        recordings = [r for r in read_recordings(recordings_folder) if r.exchange == feed.exchange]
        count = sum(len(r.trades) for r in recordings)
        assert (result.expected, result.found, result.whole) == (count, count, True)
        recorded = Counter((t.symbol, float(t.price), float(t.quantity), t.side, t.time_us + shifts[r.file]) for r in recordings for t in r.trades)
        assert Counter((t.symbol, float(t.price), float(t.quantity), t.side, t.time_us) for t in feed.sink.trades) == recorded

    asyncio.run(scene())
