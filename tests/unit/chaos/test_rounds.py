"""A round heals whatever it began, and says what failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from k2.chaos import rounds
from k2.chaos.faults import FAULTS, Violated
from k2.chaos.journal import Result
from k2.chaos.place import NothingToHurt
from k2.chaos.plan import RULES, Fault, Kind, Round, Rule, Target
from k2.chaos.watching import Sign


@dataclass
class Seen:
    """What a round would see of a platform."""

    illness: str = ""
    coldness: str = ""
    new_driver: bool = True
    verdict: str | None = None
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def begin(self) -> datetime:
        return self.began

    def ill(self, since: datetime) -> str:
        return self.illness

    def signs(self) -> list[Sign]:
        return [Sign(self.began + timedelta(seconds=2), "s", "DEAD")]

    def cold(self) -> str:
        return self.coldness

    def raised(self, stream: str) -> bool:
        return self.new_driver

    def hung(self, stream: str) -> Sign | None:
        return Sign(datetime.now(UTC) + timedelta(seconds=30), stream, self.verdict) if self.verdict else None

    def ways(self) -> str:
        return "s #2 spare"


@pytest.fixture
def healed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets that were healed, in their order. Each kind is done and limited within a moment."""
    found: list[str] = []

    @contextmanager
    def works(_: object, target: str) -> Iterator[str]:
        try:
            yield f"hurt {target}"
        finally:
            found.append(target)

    for kind in (Kind.DRIVER_KILL, Kind.AGENT_KILL, Kind.DRIVER_FREEZE):
        monkeypatch.setitem(FAULTS, kind, works)
        monkeypatch.setitem(RULES, kind, Rule(Target.STREAM, 0.3, until_found=kind is Kind.DRIVER_FREEZE, new_driver=kind is not Kind.AGENT_KILL))
    return found


def run(monkeypatch: pytest.MonkeyPatch, seen: Seen, *faults: tuple[Kind, str]) -> Result:
    monkeypatch.setattr(rounds, "Watching", lambda _: seen)
    return rounds.Rounds(None, lambda _: None).run(1, Round(0, tuple(Fault(kind, target) for kind, target in faults)))  # type: ignore[arg-type]


def test_two_faults_are_done_and_healed(monkeypatch: pytest.MonkeyPatch, healed: list[str]) -> None:
    """The result tells both, when the first sign was seen, and how it went on."""
    result = run(monkeypatch, Seen(), (Kind.DRIVER_KILL, "s"), (Kind.AGENT_KILL, "platform"))
    assert sorted(healed) == ["platform", "s"]
    assert (result.did, result.detected, result.detected_as, result.how, result.trouble) == ("hurt s; hurt platform", 2.0, "s DEAD", "s #2 spare", "")


@pytest.mark.parametrize("error", [NothingToHurt("no spare"), OSError("no"), Violated("it committed")])
def test_one_that_fails_leaves_the_other_healed(monkeypatch: pytest.MonkeyPatch, healed: list[str], error: Exception) -> None:
    """A fault that finds nothing is not a failure of the platform; a stale commit is, and so is a part that does not answer."""

    @contextmanager
    def fails(_: object, __: str) -> Iterator[str]:
        raise error
        yield

    monkeypatch.setitem(FAULTS, Kind.AGENT_KILL, fails)
    result = run(monkeypatch, Seen(), (Kind.DRIVER_KILL, "s"), (Kind.AGENT_KILL, "platform"))
    assert healed == ["s"]
    nothing = isinstance(error, NothingToHurt)
    assert (result.skipped, bool(result.trouble)) == (nothing, not nothing)


def test_an_interruption_heals_at_once(monkeypatch: pytest.MonkeyPatch, healed: list[str]) -> None:
    """However long the fault would be held."""
    monkeypatch.setitem(RULES, Kind.AGENT_KILL, Rule(Target.PART, 0.3, lasts_seconds=100))

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, Seen(), (Kind.AGENT_KILL, "platform"))
    assert healed == ["platform"] and time.monotonic() - began < 50


def test_what_is_not_back_in_time_is_named(monkeypatch: pytest.MonkeyPatch, healed: list[str]) -> None:
    """With the limit."""
    result = run(monkeypatch, Seen(illness="s DEAD"), (Kind.AGENT_KILL, "platform"))
    assert result.trouble == "not back within 0 s: s DEAD" and result.recovered is None


def test_a_pool_that_stays_cold_is_no_recovery(monkeypatch: pytest.MonkeyPatch, healed: list[str]) -> None:
    """Of a fault that hurts a spare, and of no other."""
    monkeypatch.setitem(FAULTS, Kind.SPARE_KILL, FAULTS[Kind.AGENT_KILL])
    monkeypatch.setitem(RULES, Kind.SPARE_KILL, Rule(Target.PART, 0.3, pool=True))
    cold = Seen(coldness="0 of 1 spares are warm")
    assert run(monkeypatch, cold, (Kind.SPARE_KILL, "platform")).trouble == "not back within 0 s: 0 of 1 spares are warm"
    assert run(monkeypatch, cold, (Kind.AGENT_KILL, "platform")).trouble == ""


def test_the_last_commit_of_the_old_driver_is_no_recovery(monkeypatch: pytest.MonkeyPatch, healed: list[str]) -> None:
    """A killed driver's stream is back with the next driver only."""
    result = run(monkeypatch, Seen(new_driver=False), (Kind.DRIVER_KILL, "s"))
    assert result.trouble == "not back within 0 s: s has no new driver"


def test_a_hang_has_its_verdict_and_its_own_time(monkeypatch: pytest.MonkeyPatch, healed: list[str]) -> None:
    """Counted from the moment when that fault was done."""
    result = run(monkeypatch, Seen(verdict="HUNG_SOURCE"), (Kind.DRIVER_FREEZE, "s"))
    ((stream, verdict, seconds),) = result.hangs
    assert (stream, verdict) == ("s", "HUNG_SOURCE") and 29 < seconds < 32
