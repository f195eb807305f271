"""How long a driver that hangs goes without its right verdict, at triggers of 5, 10 and 30 seconds: `./k2 bench hang`.

For each trigger the whole platform runs in a home of its own under the simulator's load. Each round hangs three streams
at once: a frozen driver, a commit that is blocked in the database, a broker that is silent for one driver alone. Times
are from when a stream stands still to the first verdict that says so. The rival is the promise: three triggers and thirty
seconds. A round begins when every driver has warmed up: a batch may go without a finished task for three times as long as
the longest of late, and a driver's first batch is slow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import yaml

from k2.bench.report import Figure, Report, machine
from k2.chaos.place import Place, until
from k2.chaos.plan import Fault, Kind, Round
from k2.chaos.rounds import Rounds
from k2.registry.files import REGISTRY
from k2.registry.platform import load_platform
from k2.stack import control
from k2.stack.errors import K2Error
from k2.stack.progress import Terminal
from k2.stack.temporary import temporary_home

ROUNDS = 3
TRIGGERS = (5, 10, 30)
PROFILE = "standard"
WARM_BATCHES = 4
SETTLE_SECONDS = 600.0
RIVAL = "3 triggers + 30 s"
HANGS: Mapping[Fault, str] = {
    Fault(Kind.DRIVER_FREEZE, "silver_kraken"): "HUNG_PROCESSING",
    Fault(Kind.WRITE_BLOCKED, "silver_binance"): "HUNG_PROCESSING",
    Fault(Kind.BROKER_HOLE, "bronze_kraken"): "HUNG_SOURCE",
}
"""Each hang and the verdict that is right for it."""


def run(rounds: int = ROUNDS) -> Report:
    """Hang all three so many times at each trigger. Raises K2Error when a verdict is wrong or a stream does not come back."""
    found: dict[tuple[int, Fault], list[float]] = {(trigger, fault): [] for trigger in TRIGGERS for fault in HANGS}
    for trigger in TRIGGERS:
        with Terminal() as progress, temporary_home("hang", progress=progress) as home:
            _declare(home, trigger)
            runtime = control.up(home, profile=PROFILE, proxied=[fault.target for fault in HANGS if fault.kind is Kind.BROKER_HOLE], progress=progress)
            place = Place(runtime)
            with closing(Rounds(place, progress.say)) as doing:
                for number in range(1, rounds + 1):
                    doing.wait_until_well()
                    _warm_up(place)
                    for fault, seconds in _hang(doing, number).items():
                        found[trigger, fault].append(seconds)
                    progress.say(", ".join(f"{fault.kind} {found[trigger, fault][-1]:.1f} s" for fault in HANGS))
    return Report("hang", machine(), figures(found))


def figures(found: Mapping[tuple[int, Fault], list[float]]) -> tuple[Figure, ...]:
    """Medians by trigger and kind of hang, and against what is promised for that trigger."""
    return tuple(
        Figure.of(f"{fault.kind}, trigger {trigger} s", seconds, "s", rival=RIVAL, rival_samples=[3 * trigger + 30])
        for (trigger, fault), seconds in found.items()
    )


def _declare(home: Path, trigger: int) -> None:
    declared = yaml.safe_load(REGISTRY.read_text())
    declared["profiles"][PROFILE] = {"trigger_seconds": trigger}
    declared["restart"]["backoff_seconds"] = [0]
    declared["restart"]["forgiven_after"]["minutes"] = 1
    (home / "platform.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    os.environ["K2_PLATFORM"] = str(home / "platform.yaml")
    load_platform.cache_clear()


def _warm_up(place: Place) -> None:
    """Wait for some commits of every stream that is to hang. Raises K2Error."""
    first = {fault.target: _last_batch(place, fault.target) for fault in HANGS}
    if not until(lambda: all(_last_batch(place, stream) >= batch + WARM_BATCHES for stream, batch in first.items()), SETTLE_SECONDS):
        raise K2Error(f"{', '.join(first)} have not committed {WARM_BATCHES} batches each within {SETTLE_SECONDS:.0f} s")


def _last_batch(place: Place, stream: str) -> int:
    tail = place.tail(stream)
    return -1 if tail is None or tail.last_commit_batch is None else tail.last_commit_batch


def _hang(doing: Rounds, number: int) -> dict[Fault, float]:
    """Seconds from each fault to its verdict."""
    result = doing.run(number, Round(0.0, tuple(HANGS)))
    if result.trouble or result.skipped:
        raise K2Error(f"round {number}: {result.trouble or result.did}")
    verdicts = {stream: (verdict, seconds) for stream, verdict, seconds in result.hangs}
    for fault, right in HANGS.items():
        if verdicts.get(fault.target, ("none", 0.0))[0] != right:
            raise K2Error(f"round {number}: {fault.kind}, {fault.target}: the verdict was {verdicts.get(fault.target)}, {right} is right")
    return {fault: verdicts[fault.target][1] for fault in HANGS}
