"""Kills a process (SIGKILL) before any change that its work makes on disk, each in turn."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "utime", "sendfile")
"""What is called only to read changes nothing, so a kill between two such calls is one before the next change."""


def killed_before(change: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that kills itself before it makes that change, counted from 1. False when the work was done before."""
    child = os.fork()
    if child == 0:
        changes = itertools.count(1)

        def counted(real: Callable[..., Any], counts: Callable[..., bool]) -> Callable[..., Any]:
            def step(*args: Any, **kwargs: Any) -> Any:
                if counts(*args) and next(changes) == change:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return step

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name), lambda *args: True))
        io.open = builtins.open = counted(io.open, lambda path, mode="r", *args: "r" not in mode)
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the work failed, and should not have"
    return False


def every_crash(begin: Callable[[], None], work: Callable[[], object]) -> Iterator[int]:
    """After `begin`, do `work` and kill it before its first change, then again before its second, and so on until it is done."""
    for change in itertools.count(1):
        begin()
        if not killed_before(change, work):
            assert change > 7, "most of the changes were not seen"
            return
        yield change
