"""Taking a checkpoint out of the way of a start, without losing it."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

from k2.checkpoints.disk import sync
from k2.checkpoints.manifest import Kind, Why
from k2.checkpoints.quarantine import put, put_copy


def move_aside(checkpoint: Path, fence: int) -> Path | None:
    """Put a whole checkpoint into the quarantine. Returns where it is now, None when there was none. Raises quarantine.Refused.

    Only when no driver of the stream runs. Nothing in it is changed: restored, it is what it was.
    """
    if not checkpoint.exists():
        return None
    return put(checkpoint, checkpoint.parent, _why(fence, "and goes on from another checkpoint")).checkpoint


def put_replaced(checkpoint: Path, fence: int) -> Path | None:
    """Put whatever lies where a checkpoint is made again into the quarantine. Returns where it is now, None when there was nothing.

    Only when no driver of the stream runs. Nothing in it is changed. Raises quarantine.Refused.
    """
    if not os.path.lexists(checkpoint):
        return None
    why = Why(kind=Kind.REPLACED, who="watchdog", why="one that was made again from its tables takes its place", at=datetime.now(UTC), about={"fence": fence})
    return put(checkpoint, checkpoint.parent, why).checkpoint


def take_new_identity(checkpoint: Path, fence: int) -> Path:
    """Make a checkpoint that of another query, which goes on from the same place. Returns where a copy of it as it was is now.

    Only when no driver of the stream runs. Interrupted before the identity is another one, it leaves a copy more in the
    quarantine. Raises quarantine.Refused.
    """
    copy = put_copy(checkpoint, checkpoint.parent, _why(fence, "and goes on from the same place as another query")).checkpoint
    (checkpoint / ".metadata.crc").unlink(missing_ok=True)  # of the old text: Spark would refuse the new one
    new = checkpoint / ".metadata.new"
    with new.open("w") as file:
        json.dump({"id": str(uuid.uuid4())}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(checkpoint / "metadata")
    sync(checkpoint)
    return copy


def _why(fence: int, what: str) -> Why:
    return Why(kind=Kind.ADOPTED, who="watchdog", why=f"its stream was adopted {what}", at=datetime.now(UTC), about={"fence": fence})
