"""Shadows of a real host agent; what they try is a small script."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from k2.launchers import shadows
from k2.launchers.client import AgentRefused, AgentUnavailable
from k2.processes import ProcessId
from k2.registry.made_of import fingerprint
from k2.registry.shadow import Outcome

STREAM = "bronze_binance"
Home = Any


@pytest.mark.parametrize(
    ("mode", "outcome", "words"),
    [
        ("", Outcome.COMPATIBLE, "tried q1"),
        ("bad-shadow", Outcome.INCOMPATIBLE, "tried q1"),
        ("silent-shadow", Outcome.UNKNOWN, "left no result"),
        ("change", Outcome.UNKNOWN, "changed while it was tried"),
    ],
)
def test_a_shadow_says_what_it_found(agent: Home, monkeypatch: pytest.MonkeyPatch, mode: str, outcome: Outcome, words: str) -> None:
    """Its word is handed on with what was tried; no word, or other files by then, is never a yes. It leaves no folder, and no driver."""
    agent.mode(mode)
    before = fingerprint(agent.runtime)
    found = agent.client.shadow(STREAM, "q1", 20)
    assert (found.stream, found.outcome) == (STREAM, outcome) and words in found.because and found.made_of
    assert mode == "change" or found.made_of == before
    assert list((agent.runtime.run / "shadows").iterdir()) == [] and agent.client.drivers() == {}


def test_a_shadow_is_killed_at_its_deadline(agent: Home) -> None:
    """One that does not end is gone when the answer comes, and the answer is that nothing is known."""
    agent.mode("deaf-shadow")
    begun = time.monotonic()
    found = agent.client.shadow(STREAM, "q1", 1)
    assert found.outcome is Outcome.UNKNOWN and 1 <= time.monotonic() - begun < 10
    assert ProcessId.of(int((agent.folder / "shadow").read_text())) is None


def test_one_shadow_at_a_time(agent: Home) -> None:
    """A second one is refused while the first runs, drivers are served meanwhile, and a stream that is not declared is refused."""
    agent.mode("slow-shadow")
    results: list[Any] = []
    first = threading.Thread(target=lambda: results.append(agent.client.shadow(STREAM, "q1", 2)))
    first.start()
    agent.wait_until(lambda: (agent.folder / "shadow").exists(), "the shadow runs")
    with pytest.raises(AgentRefused, match="a shadow of bronze_binance runs"):
        agent.client.shadow("bronze_kraken", "q1", 2)
    assert agent.client.drivers() == {}
    first.join()
    assert results[0].outcome is Outcome.UNKNOWN
    with pytest.raises(AgentRefused, match="a declared stream"):
        agent.client.shadow("gold", "q1", 2)


def test_a_shadow_ends_with_its_agent(agent: Home) -> None:
    """Killed with -9, the agent takes it along; the next one clears what it left."""
    agent.mode("slow-shadow")
    threading.Thread(target=lambda: pytest.raises(AgentUnavailable, agent.client.shadow, STREAM, "q1", 60), daemon=True).start()
    agent.wait_until(lambda: (agent.folder / "shadow").exists(), "the shadow runs")
    agent.kill_agent()
    agent.wait_until(lambda: (agent.folder / "shadow").read_text() == "ended with its line", "the shadow ends")
    agent.start_agent()
    assert not (agent.runtime.run / "shadows").exists()


def test_without_memory_nothing_is_tried(agent: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The streams that run come first."""
    import asyncio

    monkeypatch.setattr(shadows, "available_memory_mb", lambda: 1500)
    with pytest.raises(shadows.ShadowRefused, match="1500 MiB of memory are available and a shadow of bronze_binance needs 1812"):
        asyncio.run(shadows.Shadows(agent.runtime).run(STREAM, "q1", 5))
