"""The folder that holds all state of one platform (`K2_HOME`), and who may touch it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error

TREE = Path(__file__).resolve().parents[3]
SOCKET_PATH_LIMIT = 100
"""Linux refuses a unix socket path of 108 bytes or more."""


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file so that a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def read_json(path: Path) -> Any | None:
    """The file's content; None when there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class Home:
    path: Path

    @classmethod
    def at(cls, path: Path | None = None) -> Home:
        """This folder; without one `K2_HOME`, by default .k2 in the project tree. One folder has one name, links or not."""
        return cls((path or Path(os.environ.get("K2_HOME") or TREE / ".k2")).resolve())

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def airflow(self) -> Path:
        return self.path / "airflow"

    @property
    def runtime_file(self) -> Path:
        return self.run / "runtime.json"

    @property
    def registry_file(self) -> Path:
        """The platform.yaml that was applied last."""
        return self.run / "platform.yaml"

    @property
    def ports_file(self) -> Path:
        return self.run / "ports.json"

    @property
    def wanted_file(self) -> Path:
        return self.run / "wanted.json"

    @property
    def state_file(self) -> Path:
        return self.run / "stack.json"

    @property
    def services(self) -> Path:
        """One record per started service: its process, so that a later supervisor finds it again."""
        return self.run / "services"

    def create(self) -> None:
        """Make the folders that are missing. Raises K2Error when the home cannot be written."""
        try:
            for folder in (self.path, self.services, self.run / "drivers", self.logs / "drivers", self.data, self.airflow):
                folder.mkdir(parents=True, exist_ok=True)
            for private in (self.secrets, self.run, self.airflow):
                private.mkdir(mode=0o700, exist_ok=True)
                private.chmod(0o700)
        except OSError as error:
            raise K2Error(f"{self.path} cannot be written ({error.strerror}): set K2_HOME to a folder of your own") from None

    def runtime(self) -> Runtime | None:
        """Where the platform of this home runs, or ran last; None before its first start. Raises K2Error when it cannot be read."""
        try:
            return Runtime.model_validate_json(self.runtime_file.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            wrong = str(error).splitlines()[0]
            raise K2Error(f"{self.runtime_file} cannot be read ({wrong}): stop the platform with the k2 that started it, then remove this file") from None

    def agent_socket(self) -> Path:
        """The host agent's socket: in the home, or in a private temporary folder where that path would be too long."""
        socket = self.run / "agent.sock"
        if len(os.fsencode(socket)) < SOCKET_PATH_LIMIT:
            return socket
        folder = Path(tempfile.gettempdir()) / f"k2-{os.geteuid()}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}"
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if folder.is_symlink() or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise K2Error(f"{folder} is not a private folder of this user: remove it, or set K2_HOME to a path shorter than {SOCKET_PATH_LIMIT - 20} bytes")
        return folder / "agent.sock"

    def secret(self, name: str) -> str:
        """A generated password of this home; made on first use, in a file that nobody else could ever open."""
        path = self.secrets / name
        if not path.exists():
            descriptor, complete = tempfile.mkstemp(dir=self.secrets)  # mode 0600 from its creation
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
            with contextlib.suppress(FileExistsError):
                os.link(complete, path)
            Path(complete).unlink()
        return path.read_text()

    @contextlib.contextmanager
    def locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold run/<name>, a lock that dies with its holder. Yields False when another process holds it (`wait=False`)."""
        with (self.run / name).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True
