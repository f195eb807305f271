"""What a person sees while something takes longer than a second."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.status import Status

PRINTED_WIDTH = 140
"""Columns of a table where the output is not a terminal and COLUMNS says nothing."""


def console() -> Console:
    """Where results are printed."""
    wide = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if wide else PRINTED_WIDTH)


class Progress(Protocol):
    def say(self, line: str) -> None:
        """Something is done: a line that stays."""

    def now(self, text: str) -> None:
        """What is going on at this moment: replaced by the next."""


class Silent:
    def say(self, line: str) -> None: ...

    def now(self, text: str) -> None: ...


class Terminal:
    """A spinner with the current step on a terminal; elsewhere plain lines, the current step at most every 10 s."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._started = time.monotonic()
        self._last_plain = self._started

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._status:
            self._status.stop()

    def say(self, line: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._started:6.1f} s[/]  {line}", soft_wrap=True)
        sys.stderr.flush()

    def now(self, text: str) -> None:
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif time.monotonic() - self._last_plain > 10:
            self._last_plain = time.monotonic()
            self.say(text)
