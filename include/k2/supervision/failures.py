"""What a death means for what follows: its class, and whether it is the second of its kind."""

from __future__ import annotations

from collections.abc import Sequence

from k2.registry.observed import Checkpoint, Death, Driver, ExitCode, Failure, FailureClass, Records, Wanted

CLASSES = {
    ExitCode.QUERY_FAILED: FailureClass.QUERY,
    ExitCode.DEPENDENCY: FailureClass.DEPENDENCY,
    ExitCode.INCOMPATIBLE: FailureClass.INCOMPATIBLE,
    ExitCode.FENCED: FailureClass.FENCED,
    ExitCode.CONFIG: FailureClass.CONFIG,
}
"""Every other way to leave, a signal or a crash without a word, is infrastructure."""
UNCOUNTED = frozenset({FailureClass.DEPENDENCY, FailureClass.FENCED})
"""Deaths that say nothing against the stream itself."""


def failure_class(exit_code: int | None) -> FailureClass:
    """Total: an exit code that nobody defined is a crash."""
    return CLASSES.get(exit_code, FailureClass.INFRASTRUCTURE)  # type: ignore[call-overload, no-any-return]


def deaths(wanted: Wanted, driver: Driver | None, checkpoint: Checkpoint | None) -> tuple[Death, ...]:
    """The last deaths of a stream, newest first, with the one of this driver, which may not be recorded yet."""
    if driver is None or driver.fence != wanted.fence or driver.ended_at is None or driver.asked:
        return wanted.lately
    if wanted.lately and wanted.lately[0].fence == driver.fence:
        return wanted.lately
    return (
        Death(
            fence=driver.fence,
            generation=wanted.launch_generation or wanted.generation,
            at=driver.ended_at,
            kind=failure_class(driver.exit_code),
            exit_code=driver.exit_code,
            commits=commits(wanted, checkpoint),
            failure=driver.failure or Failure(),
        ),
        *wanted.lately,
    )


def commits(wanted: Wanted, checkpoint: Checkpoint | None) -> int:
    """How many batches the current launch is known to have committed."""
    if wanted.first_commit_batch is None:
        return 0
    last = max((n for n in (wanted.known_batch, checkpoint.last_commit_batch if checkpoint else None) if n is not None), default=-1)
    return max(1, last - wanted.first_commit_batch + 1)


def poison(lately: Sequence[Death]) -> Failure | None:
    """What the newest death blames, when its query failed in the same way at the same batch before; else None."""
    if not lately:
        return None
    newest, *older = lately
    if not _may_be_poison(newest):
        return None
    same = [d for d in older if _may_be_poison(d) and (d.failure.fingerprint, d.failure.batch) == (newest.failure.fingerprint, newest.failure.batch)]
    return newest.failure if same else None


def _may_be_poison(death: Death) -> bool:
    return death.kind is FailureClass.QUERY and bool(death.failure.fingerprint) and death.failure.batch is not None


def streak(lately: Sequence[Death]) -> int:
    """How many of the newest deaths do not count, since the last one that does or that had committed."""
    found = 0
    for death in lately:
        if death.kind not in UNCOUNTED:
            break
        found += 1
        if death.commits:
            break
    return found


def blame(failure: Failure) -> str:
    """The records of a failed batch that are to blame, and whether that is more than is known."""
    found = records_in_words(failure.records)
    if failure.narrowed or not failure.records:
        return found
    return f"{found} (all of the batch: those that fail could not be told from the others)"


def records_in_words(records: Records | None) -> str:
    """Topic, partition and offsets, as short as they go."""
    if not records:
        return "records that nobody could name"
    said = []
    for topic, partitions in sorted(records.items()):
        for partition, ranges in sorted(partitions.items(), key=lambda item: int(item[0])):
            offsets = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges)
            said.append(f"{topic} partition {partition} offset {offsets}")
    return "; ".join(said)
