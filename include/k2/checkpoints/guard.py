"""Whether a checkpoint is still the one that its stream was seen with. Pure.

Spark starts from a checkpoint that lost its identity as if it were new, and numbers its batches from 0 again: what it
then writes was written before, and no sink recognises it.
"""

from __future__ import annotations

from k2.registry.observed import Checkpoint, Wanted


def rewound(wanted: Wanted, checkpoint: Checkpoint) -> str | None:
    """How a checkpoint is another one, or ends before what was committed; None when it goes on from there."""
    if wanted.known_query_id is None or wanted.known_batch is None:
        return None
    if checkpoint.query_id != wanted.known_query_id:
        return f"its checkpoint belongs to {f'query {checkpoint.query_id}' if checkpoint.query_id else 'no query'}, and it was that of {wanted.known_query_id}"
    if checkpoint.last_commit_batch is None or checkpoint.last_commit_batch < wanted.known_batch:
        return f"its checkpoint ends with batch {checkpoint.last_commit_batch}, and batch {wanted.known_batch} was committed"
    return None
