"""Work that is broken off at one of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from k2.launchers.client import AgentClient


class Killed(BaseException):
    """What stands for kill -9: nobody catches it."""


class Steps:
    """Every statement, commit, call to the host agent and rename while it is installed, and whatever `more` names; it kills before or after one of them."""

    def __init__(self, at: int, before: bool) -> None:
        self.passed = 0
        self._at, self._before = at, before

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self.passed += 1
            due = self.passed == self._at
            if due and self._before:
                raise Killed
            result = call(*args, **kwargs)
            if due:
                raise Killed
            return result

        return step

    @contextmanager
    def installed(self, *more: tuple[Any, str]) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            owners = [(psycopg.Connection, "execute"), (psycopg.Connection, "commit"), (AgentClient, "_call"), (Path, "rename")]
            for owner, name in (*owners, *more):
                patch.setattr(owner, name, self._around(getattr(owner, name)))
            yield
