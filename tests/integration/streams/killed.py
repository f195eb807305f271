"""Runs the Silver job with one change: it is killed, by kill -9 to itself, at a named point of a batch.

    killed.py POINT --stream NAME --fence N

Points: before-silver, before-dlq (Silver is written), after-dlq (both are, the commit log is not).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "spark_jobs"))

import silver  # noqa: E402
from driver import main  # noqa: E402
from silver_writer import SilverWriter  # noqa: E402

POINT = sys.argv.pop(1)
append = SilverWriter._append
write = SilverWriter._write


def killed_append(self: SilverWriter, frame: Any, table: str, properties: dict[str, str]) -> None:
    if ("before-dlq" if table == self._dlq_table else "before-silver") == POINT:
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, frame, table, properties)


def killed_write(self: SilverWriter, *arguments: Any) -> None:
    write(self, *arguments)
    if POINT == "after-dlq":
        os.kill(os.getpid(), signal.SIGKILL)


SilverWriter._append = killed_append  # type: ignore[method-assign]
SilverWriter._write = killed_write  # type: ignore[method-assign]
main("silver", silver.start)
