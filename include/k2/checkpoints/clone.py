"""A copy of a checkpoint's end, to try code on: enough for Spark to go on from a committed batch. The checkpoint itself is only read."""

from __future__ import annotations

import shutil
from pathlib import Path

from k2.checkpoints.reader import CheckpointUnreadable


def clone(checkpoint: Path, target: Path, batch: int) -> None:
    """Copy what Spark needs to go on after `batch`, which must be committed: identity, sources, state, and its last two batches.

    It may be written to meanwhile: Spark renames each log file into place. Files keep their times; those that Spark has not
    renamed yet are left out. Raises CheckpointUnreadable when a file that is needed is not there, FileExistsError for a target that is.
    """
    target.mkdir(parents=True)
    needed = ["metadata"] + [f"{log}/{number}" for number in ([batch - 1] if batch else []) + [batch] for log in ("offsets", "commits")]
    for name in needed:
        (target / name).parent.mkdir(exist_ok=True)
        try:
            shutil.copy2(checkpoint / name, target / name)
        except FileNotFoundError:
            raise CheckpointUnreadable(checkpoint, f"{name} does not exist, so nothing can be tried after batch {batch}") from None
        except OSError as error:
            raise CheckpointUnreadable(checkpoint, f"{error.strerror}: {error.filename}") from error
    for folder in ("sources", "state"):
        if (checkpoint / folder).is_dir():
            shutil.copytree(checkpoint / folder, target / folder, ignore=shutil.ignore_patterns(".*.tmp"))
