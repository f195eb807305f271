"""The start protocol where the source no longer holds the stream's place, with the database told."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2.checkpoints.entries import entries
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.retention import Loss
from k2.launchers import start as protocol
from k2.launchers.client import AgentUnavailable
from k2.launchers.retention import NotKnown
from k2.registry.observed import Wanted
from k2.state.retired import Tombstone

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STREAM = "bronze_binance"
LOST = Loss("Kafka no longer holds 5 records", {"0": (10, 15)})
GONE = Loss("topic t was made anew")
STANDS = Wanted("running", 2, 5, launch_generation=2, intent_at=NOW, launched_at=NOW, first_commit_at=NOW, first_commit_batch=3, ended_at=NOW)


class World:
    """The database and the agent: what was written and done, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[Any] = []
        self.wanted = STANDS
        self.loss: Loss | None = None
        self.overtaken: int | None = None
        self.told: Loss | None = None
        self.tombstone: Tombstone | None = None
        self.runtime: Any = SimpleNamespace(checkpoint=lambda stream: folder / "checkpoints" / stream, accepted_loss=lambda *_: folder / "run" / "loss.json")
        self.agent: Any = SimpleNamespace(drivers=dict, launch=self.launch)
        (folder / "checkpoints" / STREAM).mkdir(parents=True)
        (folder / "run").mkdir()
        connection = SimpleNamespace(execute=lambda *_: None)
        monkeypatch.setattr(protocol.database, "connect", lambda *_: contextlib.nullcontext(connection))
        monkeypatch.setattr(protocol, "Preflight", lambda *_: SimpleNamespace(loss=lambda *_: self.loss, overtaken=lambda *_: self.overtaken))
        monkeypatch.setattr(protocol.streams, "wanted", lambda *_: self.wanted)
        monkeypatch.setattr(protocol.streams, "raise_fence", self.raise_fence)
        monkeypatch.setattr(protocol.streams, "adopted_loss", lambda *_: self.told.as_dict() if self.told else None)
        monkeypatch.setattr(protocol.retired, "of", lambda *_: self.tombstone)
        for name in ("ended", "launched", "hold", "record_adoption", "expect_new_checkpoint", "accepted_loss"):
            monkeypatch.setattr(protocol.streams, name, self.note(name))

    def note(self, name: str) -> Any:
        return lambda _, *values, **__: self.did.append((name, *values)) if name != "accepted_loss" else {"0": [10, 15]}

    def raise_fence(self, *_: Any, seen: int, **__: Any) -> int:
        self.did.append(("raise_fence", seen + 1))
        return seen + 1

    def launch(self, stream: str, fence: int, *, spare: bool) -> Any:
        self.did.append(("launch", fence))
        return SimpleNamespace(how="cold")

    def start(self) -> list[Any]:
        protocol.start(self.runtime, self.agent, STREAM, fence=5, generation=2, reason="test")
        return [step for step in self.did if step[0] not in ("ended", "launched")]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_nothing_lost_is_a_plain_start(world: World) -> None:
    """Nothing of a loss is written."""
    assert world.start() == [("raise_fence", 6), ("launch", 6)]
    assert not world.runtime.accepted_loss().exists()


@pytest.mark.parametrize("loss", [LOST, GONE])
def test_a_loss_is_held_and_nothing_is_launched(world: World, loss: Loss) -> None:
    """For the generation that asked, in the words of the loss; no fence is raised and the checkpoint stays."""
    world.loss = loss
    with pytest.raises(protocol.NotSafe, match=loss.sentence):
        world.start()
    assert world.did == [("hold", STREAM, 2, loss.sentence)]
    assert world.runtime.checkpoint(STREAM).exists()


def test_an_adopted_loss_is_recorded_and_told_to_the_driver(world: World) -> None:
    """With the launch, in the transaction that raises its fence; the file is there before the driver is."""
    world.loss, world.told, world.wanted = LOST, LOST, replace(STANDS, adopted_generation=2, launch_generation=1)
    told: list[Any] = []
    world.agent.launch = lambda *_, **__: told.append(json.loads(world.runtime.accepted_loss().read_text())) or SimpleNamespace(how="cold")
    assert world.start() == [("raise_fence", 6), ("record_adoption", STREAM, 6, {"0": (10, 15)})]
    assert told == [{"0": [10, 15]}]


@pytest.mark.parametrize("told", [None, GONE, Loss("fewer", {"0": (10, 14)}), Loss("elsewhere", {"1": (10, 15)})])
def test_more_than_was_told_is_held_again(world: World, told: Loss | None) -> None:
    """What is lost beyond the offsets that somebody has accepted, or in another way, needs another word."""
    world.loss, world.told, world.wanted = LOST, told, replace(STANDS, adopted_generation=2, launch_generation=1)
    with pytest.raises(protocol.NotSafe, match=LOST.sentence):
        world.start()
    assert [step[0] for step in world.did] == ["hold"]
    world.loss, world.told = GONE, LOST
    with pytest.raises(protocol.NotSafe, match=GONE.sentence):
        world.start()
    assert world.runtime.checkpoint(STREAM).exists()


def test_an_adopted_loss_of_everything_begins_anew(world: World) -> None:
    """The checkpoint is moved aside before the fence is raised, and what was known of it counts no more."""
    world.loss, world.told, world.wanted = GONE, GONE, replace(STANDS, adopted_generation=2, first_commit_at=None)
    assert world.start() == [
        ("expect_new_checkpoint", STREAM),
        ("raise_fence", 6),
        ("expect_new_checkpoint", STREAM),
        ("record_adoption", STREAM, 6, None),
        ("launch", 6),
    ]
    assert not world.runtime.checkpoint(STREAM).exists()
    (aside,) = entries(quarantine_of(world.runtime.checkpoint(STREAM).parent))
    assert aside.checkpoint.is_dir() and aside.manifest is not None and (aside.manifest.folder, aside.manifest.about) == (STREAM, {"fence": 6})


def test_an_adopted_checkpoint_that_its_table_has_overtaken_gets_another_identity(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its old one the table would take new records for batches that it has. The old drivers are ended first."""
    world.overtaken, world.wanted = 45, replace(STANDS, adopted_generation=2, first_commit_at=None)

    def renew(checkpoint: Path, fence: int) -> None:
        world.did.append(("take_new_identity", fence))
        world.overtaken = None

    monkeypatch.setattr(protocol, "end_older", lambda agent, stream, fence: world.did.append(("end_older", fence)))
    monkeypatch.setattr(protocol, "take_new_identity", renew)
    order = ["end_older", "take_new_identity", "raise_fence", "record_adoption", "end_older", "launch"]
    assert [step[0] for step in world.start()] == order


def test_an_older_copy_that_nobody_adopted_is_held(world: World) -> None:
    """Nothing is known of the stream's checkpoint, and its table has later batches: new records would be taken for those."""
    world.overtaken = 45
    with pytest.raises(protocol.NotSafe, match="its table has batch 45 of that already"):
        world.start()
    assert [step[0] for step in world.did] == ["hold"]


@pytest.mark.parametrize(
    ("loss", "overtaken", "meanwhile"),
    [(GONE, None, {"fence": 6}), (GONE, None, {"generation": 3}), (GONE, None, {"desired": "stopped"}), (None, 45, {"fence": 6})],
)
def test_a_watchdog_that_was_frozen_moves_nothing(world: World, monkeypatch: pytest.MonkeyPatch, loss: Loss, overtaken: int, meanwhile: Any) -> None:
    """Between its decision and the move somebody else started or stopped the stream: the checkpoint stays, and what is known of it."""
    world.loss, world.told, world.overtaken = loss, loss, overtaken
    world.wanted = replace(STANDS, adopted_generation=2, first_commit_at=None)

    def thaw(*_: Any) -> None:
        world.wanted = replace(world.wanted, **meanwhile)

    monkeypatch.setattr(protocol, "end_older", thaw)
    with pytest.raises((protocol.streams.LostRace, protocol.NotWanted)):
        world.start()
    assert world.did == [] and world.runtime.checkpoint(STREAM).exists()


def test_a_rebuild_keeps_its_own_word_on_what_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a restore had adopted the same generation."""
    world.wanted = replace(STANDS, adopted_generation=2, rebuild_generation=2, first_commit_at=None, launch_generation=1)
    assert world.wanted.rebuilding
    monkeypatch.setattr(protocol, "_rebuild", lambda *_: world.did.append(("rebuilt",)))
    assert world.start() == [("raise_fence", 6), ("rebuilt",), ("launch", 6)]


def test_an_old_driver_that_cannot_be_killed_keeps_nobody_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence is up: whatever is left of it cannot commit."""

    def stuck(*_: Any) -> None:
        raise AgentUnavailable("processes [7] survived SIGKILL for 20 s")

    monkeypatch.setattr(protocol, "end_older", stuck)
    assert world.start() == [("raise_fence", 6), ("launch", 6)]


def test_an_adoption_is_used_up_by_a_commit(world: World) -> None:
    """The same loss after the first commit of the adopted generation is held again."""
    world.loss, world.told, world.wanted = LOST, LOST, replace(STANDS, adopted_generation=2)
    with pytest.raises(protocol.NotSafe):
        world.start()
    assert [step[0] for step in world.did] == ["hold"]


@pytest.mark.parametrize("entry", [None, "bronze-1"])
def test_nothing_starts_on_a_retired_checkpoint(world: World, entry: str | None) -> None:
    """Nor in its place, also while it is being retired, and with an intent that is open: the words say who did it and what to do."""
    world.tombstone = Tombstone("bronze", NOW, "ann", "nobody reads it", entry)
    for world.wanted in (STANDS, replace(STANDS, launched_at=None, ended_at=None, first_commit_at=None)):
        with pytest.raises(NotKnown, match="bronze is retired, .* by ann: nobody reads it: use streams_control with restore to bring it back, or with rebuild"):
            world.start()
    assert world.did == []


def test_a_start_that_is_continued_tells_its_driver_the_same(world: World) -> None:
    """An intent that was recorded with an accepted loss is launched with it, under its own fence."""
    world.wanted = replace(STANDS, launched_at=None, ended_at=None, first_commit_at=None)
    assert world.start() == [("launch", 5)]
    assert json.loads(world.runtime.accepted_loss().read_text()) == {"0": [10, 15]}
