"""The agent's front door."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.launchers.agent import AgentRuns, listen


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    """The kernel's limit on socket paths is told with the path and its length."""
    path = tmp_path / ("x" * 120) / "agent.sock"
    with pytest.raises(OSError, match=f"{len(str(path))} characters; a socket's path may have 107"):
        listen(path)


def test_a_left_over_socket_is_replaced_and_a_held_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed agent left behind is in nobody's way; a living agent is."""
    monkeypatch.chdir(tmp_path)
    path = Path("agent.sock")
    path.write_text("left over")
    with listen(path):
        assert path.is_socket()
        with pytest.raises(AgentRuns, match="another host agent serves agent.sock"):
            listen(path)
