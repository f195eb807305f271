"""Eight faults against a whole platform under load: each is found, every stream comes back, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
from rich.console import Console

from k2.chaos import show
from k2.chaos.journal import Result
from k2.chaos.place import Place
from k2.chaos.plan import Fault, Kind, Round
from k2.chaos.proof import prove
from k2.chaos.rounds import Rounds
from k2.demo.market import Market
from k2.registry.runtime import Runtime
from k2.state.database import connect
from k2.state.streams import launches

from ...stacks import PROXIED

TRIGGER_SECONDS = 5
HANG_SECONDS = 3 * TRIGGER_SECONDS + 30
"""Three triggers and thirty seconds: within so long a hang has its verdict, where batches take no longer than the trigger."""

FROZEN, BLOCKED, CUT_OFF = "silver_kraken", "silver_binance", PROXIED


@pytest.fixture
def platform(platform_stack: Runtime) -> Iterator[Runtime]:
    """The platform of the run; trades flow again afterwards."""
    yield platform_stack
    Market(platform_stack).resume()


def slowest_batch(platform: Runtime, stream: str) -> float:
    """Seconds from plan to commit of the slowest batch so far that no hang held up, but for the very first."""
    folder = platform.checkpoint(stream)
    batches = sorted(int(path.name) for path in (folder / "commits").glob("[0-9]*"))[1:]
    took = [(folder / "commits" / str(b)).stat().st_mtime - (folder / "offsets" / str(b)).stat().st_mtime for b in batches]
    return max((seconds for seconds in took if seconds < HANG_SECONDS), default=0.0)


def one(*faults: tuple[Kind, str]) -> Round:
    return Round(1.0, tuple(Fault(kind, target) for kind, target in faults))


@pytest.mark.timeout(900)
def test_eight_faults(platform: Runtime) -> None:
    """A driver and the agent killed at once; a driver frozen, a commit blocked, a broker silent for one; a zombie; database; task."""
    results: list[Result] = []
    began = datetime.now(UTC)
    with closing(Rounds(Place(platform), print)) as rounds:

        def run(*faults: tuple[Kind, str]) -> Result:
            rounds.wait_until_well()
            results.append(rounds.run(len(results) + 1, one(*faults)))
            print(results[-1])
            assert not results[-1].trouble and not results[-1].skipped, results[-1]
            return results[-1]

        run((Kind.DRIVER_KILL, FROZEN), (Kind.AGENT_KILL, "platform"))
        hung = run((Kind.DRIVER_FREEZE, FROZEN), (Kind.WRITE_BLOCKED, BLOCKED), (Kind.BROKER_HOLE, CUT_OFF))
        run((Kind.DRIVER_ZOMBIE, "bronze_binance"))
        run((Kind.DATABASE_RESTART, "platform"))
        run((Kind.TASK_KILL, "bronze_kraken"))
    Market(platform).pause()
    proof = prove(platform, 120)
    Console(width=160).print(*show.proof(proof), show.summary(results, proof), sep="\n")
    assert show.summary(results, proof) == "[bold green]0 lost, 0 doubled, 0 stale commits, 8 faults, all streams back[/]"
    _hangs_were_understood(platform, hung, began)


def _hangs_were_understood(platform: Runtime, hung: Result, began: datetime) -> None:
    """Each with its own verdict and in time, its place named, and the stacks of those threads kept that can be asked."""
    verdicts = {stream: (verdict, seconds) for stream, verdict, seconds in hung.hangs}
    assert {stream: verdict for stream, (verdict, _) in verdicts.items()} == {
        FROZEN: "HUNG_PROCESSING",
        BLOCKED: "HUNG_PROCESSING",
        CUT_OFF: "HUNG_SOURCE",
    }
    for stream, (_, seconds) in verdicts.items():
        slowest = slowest_batch(platform, stream)
        assert seconds <= (HANG_SECONDS if slowest <= TRIGGER_SECONDS else 3 * slowest + HANG_SECONDS), (verdicts, slowest)
    words = {FROZEN: "its driver is frozen", BLOCKED: "in the driver's own code", CUT_OFF: "it hangs at its source"}
    for stream, word in words.items():
        with connect(platform, "reader") as connection:
            (successor,) = [row for row in launches(connection, stream) if word in row["reason"] and row["intent_at"] > began]
        assert stream == FROZEN or (platform.logs / "drivers" / stream / f"{successor['fence'] - 1:06d}.threads.txt").stat().st_size > 1000
