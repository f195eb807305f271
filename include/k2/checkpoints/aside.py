"""Taking a checkpoint out of the way without losing it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import uuid
from pathlib import Path


def move_aside(checkpoint: Path, fence: int) -> Path | None:
    """Move a whole checkpoint out of the checkpoints' tree, in one rename. Returns where it is now, None when there was none.

    Only when no driver of the stream runs. Nothing in it is changed: moved back, it is what it was.
    """
    if not checkpoint.exists():
        return None
    target = _place(checkpoint, fence)
    checkpoint.rename(target)
    return target


def take_new_identity(checkpoint: Path, fence: int) -> Path:
    """Make a checkpoint that of another query, which goes on from the same place. Returns where a copy of it as it was is now.

    Only when no driver of the stream runs. Interrupted before the identity is another one, it leaves a copy more.
    """
    target = _place(checkpoint, fence)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(checkpoint, part)
    part.rename(target)
    (checkpoint / ".metadata.crc").unlink(missing_ok=True)  # of the old text: Spark would refuse the new one
    new = checkpoint / ".metadata.new"
    with new.open("w") as file:
        json.dump({"id": str(uuid.uuid4())}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(checkpoint / "metadata")
    return target


def _place(checkpoint: Path, fence: int) -> Path:
    """Named after the start that it makes way for, which may have been tried before."""
    folder = checkpoint.parent.with_name(f"{checkpoint.parent.name}.aside")
    folder.mkdir(exist_ok=True)
    names = (f"{checkpoint.name}-before-{fence}{f'-{number}' if number else ''}" for number in itertools.count())
    return next(folder / name for name in names if not (folder / name).exists())
