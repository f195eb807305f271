"""A home that does not outlive its use: for benchmarks, long load and tests."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from k2.stack import control
from k2.stack.errors import K2Error
from k2.stack.progress import Progress


@contextmanager
def temporary_home(name: str, *, progress: Progress | None = None, keep: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A K2_HOME in the temporary folder. Whatever runs in it is stopped at the end.

    It is removed, also after Ctrl-C; kept, and named, after an error or if `keep` says so. Raises K2Error when a process survives.
    """
    home = Path(tempfile.mkdtemp(prefix=f"k2-{name}-"))
    home.chmod(0o755)
    failed = False
    try:
        yield home
    except Exception:
        failed = True
        raise
    finally:
        report = control.down(home, progress=progress)
        if failed or report.left or keep():
            print(f"\nlogs and state are kept in {home}", file=sys.stderr)
        else:
            shutil.rmtree(home)
    if report.left:
        raise K2Error(f"processes {report.left} could not be ended: end them with kill -9")
