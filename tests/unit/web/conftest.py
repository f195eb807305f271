"""A board with four streams in four conditions, as plain values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from k2.ledger import Account
from k2.registry.observed import Checkpoint, Driver, DriverState, Head, Observation, Outage, QueryStatus, Reading, Wanted
from k2.registry.platform import Platform, load_platform
from k2.registry.windows import Window
from k2.supervision.budget import budget
from k2.supervision.ledger import entries, summarize
from k2.web.board import Board, StreamPage, StreamRow, Watcher, tone_of

NOW = datetime.now(UTC)
NASTY = "<script>alert('x')</script> & \"more\""


def before(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def observation(stream: str, *, fence: int = 5, lag: int = 0, committed: float = 4.0, head_error: str | None = None) -> Observation:
    topic = {"market.crypto.trades": {str(n): 12_345 + n for n in range(6)}}
    status = QueryStatus(stream, fence, "a5c1-query", "run", 41, "Waiting for next trigger", "running", None, before(2), 0.8, 118, 1.4, 0)
    return Observation(
        stream,
        before(2),
        Reading(before(2.1), Wanted("running", 3, fence, 3, before(4000), before(3999), before(3990), 12, known_query_id="a5c1-query", known_batch=41)),
        Reading(before(2.1), Driver(DriverState.RUNNING, fence, 4711, before(3999), memory_mb=812.4, how="spare", status_url="http://127.0.0.1:40001/status")),
        Reading(before(3.2), status),
        Reading(before(3.2), Checkpoint("a5c1-query", 41, 41, before(committed), topic, before(committed + 1))),
        Reading(before(3.2), error=head_error) if head_error else Reading(before(3.2), Head(topic, lag, lag / 60)),
    )


def outages() -> tuple[list[Outage], list[dict[str, Any]]]:
    """Of bronze_binance three that are over, of silver_binance one that is open."""
    rows, launches = [], []
    for number, (ago, seconds) in enumerate([(90_000.0, 4.0), (40_000.0, 21.5), (3_600.0, 3.6)]):
        at, fence = before(ago), 2 + number
        over = at + timedelta(seconds=seconds + 6)
        rows.append(
            Outage(
                "bronze_binance",
                "DEAD" if number != 1 else "HUNG_PROCESSING",
                f"its driver with fence {fence} was ended by signal 9",
                fence,
                at - timedelta(seconds=3),
                at,
                at + timedelta(seconds=seconds),
                "commit",
                fence + 1,
                over,
                over,
                "caught_up",
                number,
            )
        )
        launches.append(
            {
                "stream": "bronze_binance",
                "fence": fence + 1,
                "decided_at": at + timedelta(seconds=1.6),
                "intent_at": at + timedelta(seconds=1.7),
                "launched_at": at + timedelta(seconds=1.9),
                "how": "spare" if number != 1 else "cold",
                "first_commit_at": at + timedelta(seconds=seconds),
                "ended_at": None,
                "end_reason": None,
                "exit_code": None,
                "reason": f"its driver with fence {fence} was ended by signal 9",
            }
        )
    rows.append(Outage("silver_binance", "DEAD", "its driver with fence 7 left with 70 (QUERY_FAILED): " + NASTY, 7, before(700), before(690), id=9))
    return rows, launches


@pytest.fixture(scope="session")
def platform() -> Platform:
    return load_platform()


@pytest.fixture(scope="session")
def sample(platform: Platform) -> Board:
    """bronze_binance is well, bronze_kraken cannot be known, silver_binance is dead, silver_kraken was last judged long ago."""
    rows, launches = outages()
    found = entries(rows, launches)
    of = {name: [e for e in found if e.outage.stream == name] for name in platform.streams}
    summaries = {name: summarize(name, of[name], timedelta(days=3)) for name in platform.streams}
    budgets = {name: budget(platform.slo, [e.outage for e in of[name]], NOW) for name in platform.streams}
    account = Account(NOW, 28.0, platform.slo, found, summaries, budgets)

    def certificate(color: str, *doubts: str) -> dict[str, Any]:
        checks = [{"name": "batches", "result": "passed", "evidence": "3-41"}, *({"name": "rows", "result": "failed", "evidence": why} for why in doubts)]
        return {"color": color, "fence": 5, "at": before(3_500), "checks": checks}

    certified = {"bronze_binance": certificate("green"), "silver_binance": certificate("red", "batch 40 has 117 rows, 118 were read: " + NASTY)}

    def row(name: str, verdict: str, because: str, since: float, seen: float, seen_as: Observation | None) -> StreamRow:
        return StreamRow(
            name,
            tone_of(verdict, seen > 150),
            verdict,
            because,
            before(since),
            before(seen),
            seen_as,
            platform.streams[name].memory_mb,
            of[name],
            summaries[name],
            budgets[name],
            certified.get(name),
            seen > 150,
        )

    gone = "its driver with fence 7 left with 70 (QUERY_FAILED): " + NASTY
    silent = "KafkaSilent: the broker at 127.0.0.1:9092 did not answer within 5 s"
    streams = {
        "bronze_binance": row("bronze_binance", "PROGRESSING", "118 rows behind, and committing every 10 s", 3590, 2, observation("bronze_binance", lag=118)),
        "bronze_kraken": row(
            "bronze_kraken", "UNKNOWN", f"the head of its source cannot be known: {silent}", 40, 2, observation("bronze_kraken", head_error=silent)
        ),
        "silver_binance": row("silver_binance", "DEAD", gone, 690, 2, observation("silver_binance", fence=7, lag=48_201, committed=700)),
        "silver_kraken": row("silver_kraken", "IDLE", "all that its source holds is committed", 9000, 400, observation("silver_kraken")),
    }
    return Board(
        at=NOW,
        streams=streams,
        watchers=[Watcher("poll", before(2), False, "head: " + silent), Watcher("watchdog", before(400), True, "")],
        incidents=[
            {
                "id": 3,
                "key": "stream:silver_binance",
                "severity": "page",
                "title": "Stream silver_binance died",
                "detail": "DEAD: " + gone,
                "evidence": "Others that died within a minute: <silver_kraken>",
                "opened_at": before(690),
            },
            {
                "id": 4,
                "key": "budget:silver_binance",
                "severity": "ticket",
                "title": "The error budget of silver_binance burns too fast",
                "detail": budgets["silver_binance"].burning + "\nWhat to do: ./k2 ledger silver_binance",
                "evidence": None,
                "opened_at": before(60),
            },
        ],
        spares={"1": True, "2": False},
        spares_wanted=2,
        account=account,
        windows=[Window(1, "silver", before(60), NOW + timedelta(hours=1), "admin", "new disks")],
    )


@pytest.fixture(scope="session")
def stream_page(sample: Board) -> StreamPage:
    _, launches = outages()
    audit = {
        "id": 1,
        "at": before(5000),
        "who": "admin",
        "action": "restart",
        "target": "bronze_binance",
        "reason": "new code: " + NASTY,
        "outcome": "recorded",
        "approved_by": "someone",
        "before": {"desired": "running", "generation": 2, "fence": 1},
        "after": {"desired": "running", "generation": 3, "fence": 1},
    }
    return StreamPage(sample.streams["bronze_binance"], launches[::-1], [audit])
