"""Backups of a checkpoint: copies of where its query stood after a batch, each proven when it is made and when it goes back.

A backup is an entry as in the quarantine, below `<checkpoints>.backups/<folder>/` and on the same file system. It holds the
identity, the sources, the last two batches and the plan of the one in flight, which is all that a stateless query needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from k2.checkpoints.clone import clone
from k2.checkpoints.entries import Entry, Refused, discard, entries, recover, verify
from k2.checkpoints.manifest import Kind, Manifest, Why
from k2.checkpoints.quarantine import refuse_misfit, restore_copy, take_copy
from k2.checkpoints.reader import ATTEMPTS, CheckpointUnreadable, read_tail
from k2.registry.observed import Checkpoint

BACKUPS = ".backups"


def backups_of(root: Path, folder: str) -> Path:
    """Where the backups of the checkpoint `folder` of the folder `root` lie. Their entries are listed by `quarantine.entries`."""
    return root.with_name(root.name + BACKUPS) / folder


def back_up(
    checkpoint: Path,
    root: Path,
    *,
    who: str,
    why: str,
    at: datetime,
    keep: int,
    about: Mapping[str, JsonValue] | None = None,
    stopped: bool = False,
) -> Entry:
    """Copy where the query of a checkpoint of the folder `root` stands, while it runs, and keep the newest `keep` backups.

    Older ones go only when this one is proven; one that has something wrong with it is left for people. One at a time of
    one checkpoint. `stopped`: its query does not run, so a checkpoint with state can be copied. Raises Refused, OSError.
    """
    if keep < 1:
        raise Refused(f"keep is {keep}: keep 1 backup or more")
    refuse_misfit(checkpoint, root)
    if not stopped and (checkpoint / "state").is_dir():
        raise Refused(f"{checkpoint} has state, which its query changes while it is copied: stop the stream, then make the backup")
    place = backups_of(root, checkpoint.name)
    recover(place)

    def copy(target: Path) -> None:
        planned = _copy(checkpoint, target)
        if stopped and read_tail(checkpoint) != planned:
            raise Refused(f"{checkpoint} was written to while it was copied: stop its stream first")

    made = take_copy(place, checkpoint, Why(kind=Kind.BACKUP, who=who, why=why, at=at, about=dict(about or {})), copy)
    others = [e for e in entries(place) if e.folder != made.folder]
    whole = sorted((e.manifest.at, e.folder, e) for e in others if e.manifest is not None and e.wrong is None)
    too_many = [entry for _, _, entry in whole[: max(0, len(whole) + 1 - keep)]]
    for entry in [*(e for e in others if e.purging), *too_many]:
        discard(entry)
    return made


def restore_backup(backup: Entry, target: Path, root: Path, table_newest_batch: int | None, replaced: Why | None = None) -> Manifest:
    """Put a copy of a backup at `target`, if the stream's own table stands where the backup does. `replaced` as of `quarantine.restore`.

    `table_newest_batch` is the newest batch that the backup's query has committed there, None when that cannot be known.
    A query that goes on from a backup plans the batches after it anew, with other offsets under the same numbers; the table
    passes by every number that it has, so what the new batches hold more is lost, and what they hold less is doubled later.
    Only the batch in flight is planned already and repeats what it was, so the table may have that one or not; and a table
    that ends before the backup has lost batches which the query would never do again.

    Raises Refused.
    """
    manifest = verify(backup)
    committed, planned = manifest.last_committed, manifest.last_planned
    if committed is None or planned is None:
        raise Refused(f"{backup.folder} ends with no batch, so it is no backup")
    if table_newest_batch is None:
        raise Refused(f"the newest batch of query {manifest.query_id} in its table cannot be known: find out first, or rebuild the checkpoint from the table")
    if table_newest_batch > planned:
        raise Refused(
            f"the table has batch {table_newest_batch} of query {manifest.query_id}, and the backup ends with {planned}: "
            "rows would be lost or doubled, so rebuild the checkpoint from the table"
        )
    if table_newest_batch < committed:
        raise Refused(
            f"the table ends with batch {table_newest_batch} of query {manifest.query_id}, and the backup has committed {committed}: "
            "what lies between would be lost, so restore an older backup or rebuild the checkpoint from the table"
        )
    return restore_copy(backup, target, root, replaced)


def _copy(checkpoint: Path, target: Path) -> Checkpoint:
    """Copy where a query stands, and return that. What Spark purges meanwhile makes it begin again. Raises Refused."""
    for _ in range(ATTEMPTS):
        shutil.rmtree(target, ignore_errors=True)
        try:
            tail = read_tail(checkpoint)
            if tail.query_id is None or tail.last_commit_batch is None or tail.last_offset_batch is None:
                raise Refused(f"{checkpoint} has {'no batch committed' if tail.query_id else 'no metadata'}: there is nothing to go back to")
            clone(checkpoint, target, tail.last_commit_batch)
            if tail.in_flight:
                planned = f"offsets/{tail.last_offset_batch}"
                shutil.copy2(checkpoint / planned, target / planned)
            if read_tail(target) == tail and tail.last_offset_batch - tail.last_commit_batch in (0, 1):
                return tail
            wrong = f"its copy ends with batch {tail.last_commit_batch} committed and {tail.last_offset_batch} planned"
        except (CheckpointUnreadable, OSError) as error:
            wrong = str(error)
    raise Refused(f"{checkpoint} could not be copied in {ATTEMPTS} attempts: {wrong}")
