"""Work that is broken off at one of its steps: before or after a statement, a commit, a call to the host agent or a rename."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
import pytest

from k2.launchers.client import AgentClient

Owned = tuple[Any, str]
"""A call by its owner and its name."""
STEPS: tuple[Owned, ...] = ((psycopg.Connection, "execute"), (psycopg.Connection, "commit"), (AgentClient, "_call"), (Path, "rename"))


class Steps:
    """Counts the steps that pass while it is installed, and does something at one of them."""

    def __init__(self, at: int, then: Callable[[], None]) -> None:
        self.passed = 0
        self._at, self._then = at, then
        self._lock = threading.Lock()

    def _step(self) -> None:
        with self._lock:
            self.passed += 1
            due = self.passed == self._at
        if due:
            self._then()

    @contextmanager
    def installed(self, *more: Owned) -> Iterator[None]:
        """Meanwhile `more` are steps as well."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in (*STEPS, *more):
                patch.setattr(owner, name, self._around(getattr(owner, name)))
            yield

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            self._step()
            answer = call(*args, **kwargs)
            self._step()
            return answer

        return stepped


def killed_at(at: int, work: Callable[[], object], *more: Owned) -> bool:
    """Do `work` in a process that is killed with -9 at that step, counted from 1, as an Airflow task may be. False when it was done before."""
    child = get_context("fork").Process(target=_work_until, args=(at, work, more))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL), "the work failed, and should not have"
    return child.exitcode != 0


def _work_until(at: int, work: Callable[[], object], more: tuple[Owned, ...]) -> None:
    with Steps(at, lambda: os.kill(os.getpid(), signal.SIGKILL)).installed(*more):
        work()
    os._exit(0)
