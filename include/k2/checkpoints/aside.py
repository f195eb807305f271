"""Taking a checkpoint out of the way without losing it."""

from __future__ import annotations

from pathlib import Path


def move_aside(checkpoint: Path, fence: int) -> Path | None:
    """Move a whole checkpoint out of the checkpoints' tree, in one rename. Returns where it is now, None when there was none.

    Only when no driver of the stream runs. Nothing in it is changed: moved back, it is what it was.
    """
    target = checkpoint.parent.with_name(f"{checkpoint.parent.name}.aside") / f"{checkpoint.name}-before-{fence}"
    if not checkpoint.exists():
        return None
    target.parent.mkdir(exist_ok=True)
    checkpoint.rename(target)
    return target
