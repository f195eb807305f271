"""The state folder: modes, secrets, locks, the length of the socket's path."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from k2.stack.errors import K2Error
from k2.stack.home import SOCKET_PATH_LIMIT, Home, read_json, write_atomically


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_folders_are_private(home: Home) -> None:
    """Nobody else may look into secrets, run and airflow."""
    assert {mode(folder) for folder in (home.secrets, home.run, home.airflow)} == {0o700}


def test_a_secret_is_made_once_and_is_private_under_any_umask(home: Home) -> None:
    """Two calls give one password, in a file of mode 0600 from its creation, with no other file beside it."""
    before = os.umask(0)
    try:
        secret = home.secret("postgres_admin")
    finally:
        os.umask(before)
    assert home.secret("postgres_admin") == secret
    assert len(secret) >= 32
    assert [(path.name, mode(path)) for path in home.secrets.iterdir()] == [("postgres_admin", 0o600)]


def test_a_written_file_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    """The replaced file's own mode does not matter."""
    path = tmp_path / "airflow.cfg"
    path.write_text("old")
    path.chmod(0o644)
    write_atomically(path, "new", mode=0o600)
    assert (path.read_text(), mode(path), len(list(tmp_path.iterdir()))) == ("new", 0o600, 1)


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    """A state file that is not there yet is no error."""
    assert read_json(tmp_path / "stack.json") is None


def test_a_home_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    """The message names the folder and the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(K2Error, match="set K2_HOME"):
        Home(tmp_path / "file" / "home").create()


def test_a_runtime_that_another_version_wrote_says_what_to_do(home: Home) -> None:
    """Before the first start there is none, which is no mistake."""
    assert home.runtime() is None
    home.runtime_file.write_text('{"profile": "standard", "of_yesterday": 1}')
    with pytest.raises(K2Error, match="runtime.json cannot be read .*stop the platform with the k2 that started it, then remove this file"):
        home.runtime()


def test_a_lock_is_held_by_one(home: Home) -> None:
    """A second holder is told so, and gets it when the first has left."""
    with home.locked("lock", wait=False) as first:
        assert first
        with home.locked("lock", wait=False) as second:
            assert not second
    with home.locked("lock", wait=False) as again:
        assert again


def test_the_socket_is_in_the_home_when_its_path_is_short() -> None:
    """The usual case."""
    assert Home(Path("/srv/k2")).agent_socket() == Path("/srv/k2/run/agent.sock")


def test_a_long_home_gets_a_short_private_socket_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path fits, the folder is private, and is the same at every call and another for another home."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, other = (Home(Path("/srv") / ("x" * 100) / name).agent_socket() for name in ("one", "other"))
    assert len(os.fsencode(one)) < SOCKET_PATH_LIMIT + len(os.fsencode(tmp_path))
    assert mode(one.parent) == 0o700
    assert one == Home(Path("/srv") / ("x" * 100) / "one").agent_socket()
    assert one.parent != other.parent


def test_a_socket_folder_that_others_may_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have made the folder first."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = Home(Path("/srv") / ("x" * 100))
    home.agent_socket().parent.chmod(0o777)
    with pytest.raises(K2Error, match="not a private folder"):
        home.agent_socket()
