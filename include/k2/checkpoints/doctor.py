"""What is wrong with a checkpoint, growing in it, or about to break: findings with evidence, consequence and fix. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from k2.checkpoints import contents
from k2.checkpoints.contents import Malformed, SourceKind, UnknownFormat
from k2.checkpoints.names import SINK_LOG
from k2.checkpoints.retention import Loss
from k2.checkpoints.scan import TIMED, Facts, Source

LEFTOVER_AGE = timedelta(hours=24)
LEFTOVER_BATCHES = 3
"""A temporary file was left by a crash when it is a day old, and older than so many of the longest batch."""
MANY_CHANGES = 20
"""State that is read back from so many changes, without any snapshot, is made by runs that end before they take one."""
NEAR = 0.7
"""Of the time for which the source keeps records: a stream that has not committed for longer may soon have lost its place."""
MIB = 1024 * 1024
LARGE_LOG_BYTES = 100 * MIB

RESTORE = "do not start it: use streams_control with rebuild, or put back a backup of it"


class Health(StrEnum):
    """From good to bad: a checkpoint is what the worst finding of it says."""

    HEALTHY = "healthy"
    GROWING = "growing"
    BREAKING = "about to break"
    UNKNOWN = "cannot be known"
    DAMAGED = "damaged"

    @property
    def rank(self) -> int:
        return list(Health).index(self)


@dataclass(frozen=True)
class Finding:
    """`told`: the watchdog tells people of it as well, for it looks at the same."""

    health: Health
    evidence: str
    consequence: str
    fix: str
    told: bool = False


@dataclass(frozen=True)
class Texts:
    """The small files of a checkpoint that tell where it stands. One that is not there is left out, one that cannot be read is in `unread` with the reason."""

    metadata: str | None = None
    plans: Mapping[int, str] = field(default_factory=dict)
    """The newest two."""
    commit: str | None = None
    """The newest."""
    starts: Mapping[str, str] = field(default_factory=dict)
    """Per source."""
    operators: Mapping[str, str] = field(default_factory=dict)
    """What each stateful operator says of itself, where it does in the form that is known here."""
    file_logs: Mapping[str, str] = field(default_factory=dict)
    """The newest file of each log of files, by its name, unless it is large."""
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Surroundings:
    """What a checkpoint is compared with. None is what was not asked, or could not be read: then `unread` says why."""

    stream: str | None = None
    """The declared stream that claims it."""
    alone: bool = False
    """Nothing beside it was asked: nobody knows whose it is."""
    known: bool = False
    """Whether its identity is the one that its stream was seen with."""
    rewound: str | None = None
    """How it is no longer the checkpoint that its stream was seen with."""
    loss: Loss | None = None
    """What of its source is gone before it was read."""
    keeps: timedelta | None = None
    """For how long the source keeps what is not read."""
    behind: bool | None = None
    """Whether the source holds anything that it has not committed."""
    begins_on_main: bool | None = None
    """Of a reader of an Iceberg table: whether the snapshot that it began with is still there."""
    earlier: tuple[datetime, int] | None = None
    """Its bytes at an earlier time."""
    limit_mb: float | None = None
    retired: str | None = None
    """That it is retired, when and by whom."""
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patient:
    """All that is known of one checkpoint at a moment."""

    facts: Facts
    texts: Texts
    around: Surroundings
    now: datetime

    @property
    def sources(self) -> dict[str, SourceKind | None]:
        """What each source of the newest plan is, by its folder; None where it had no data yet. Raises Malformed."""
        if not self.texts.plans:
            return {}
        newest = max(self.texts.plans)
        offsets = contents.offsets(self.texts.plans[newest], f"offsets/{newest}")
        return {str(number): None if offset is None else contents.kind(offset) for number, offset in enumerate(offsets)}

    @property
    def growth_per_day(self) -> float | None:
        """Bytes by which it grows in a day; None when its size is not known of an earlier day."""
        if self.around.earlier is None:
            return None
        at, size = self.around.earlier
        days = (self.now - at) / timedelta(days=1)
        return (self.facts.bytes - size) / days if days > 0 else None


def left_before(facts: Facts, now: datetime) -> float:
    """What was left by a crash is older than this moment, in seconds since 1970: than a day, than three of the longest batches, and than the one in flight."""
    longest = max(facts.batch_seconds(TIMED), default=0.0)
    latest = now.timestamp() - max(LEFTOVER_AGE.total_seconds(), LEFTOVER_BATCHES * longest)
    planned, done = facts.offsets.last, facts.commits.last
    in_flight = facts.offsets.written.get(planned) if planned is not None and planned != done else None
    return latest if in_flight is None else min(latest, in_flight)


def diagnose(patient: Patient) -> list[Finding]:
    """Every finding, the worst first."""
    # Of a folder that could not be listed nothing may be called missing.
    checks = (_readable,) if patient.facts.unread else CHECKS
    found = [finding for check in checks for finding in check(patient)]
    return sorted(found, key=lambda finding: finding.health.rank, reverse=True)


def missing(around: Surroundings) -> list[Finding]:
    """What is wrong where no checkpoint lies: nothing if its stream was never started, or if it is retired."""
    if around.retired:
        return []
    if around.rewound or around.loss is not None:
        evidence = f"it is gone: {around.rewound or (around.loss.sentence if around.loss else '')}"
        held = "its stream, if it is wanted running, is held as REWIND and not started"
        return [Finding(Health.DAMAGED, evidence, held, "put it back, or use streams_control with rebuild or adopt", told=True)]
    unknown = "whether it should be there cannot be told"
    return [Finding(Health.UNKNOWN, why, unknown, "bring that back, then examine it again", told=True) for why in around.unread]


def health(findings: Sequence[Finding]) -> Health:
    return max((finding.health for finding in findings), key=lambda found: found.rank, default=Health.HEALTHY)


def _readable(patient: Patient) -> Iterator[Finding]:
    facts = patient.facts
    for where in [*facts.unread, *(f"{name}: {why}" for name, why in patient.texts.unread.items())]:
        yield Finding(Health.UNKNOWN, where, "what it holds can be neither checked nor kept small", "mend permissions or disk, then examine it again")
    if facts.irregular.count:
        evidence = f"{facts.irregular.count} links or special files: {', '.join(facts.irregular.named)}"
        yield Finding(Health.UNKNOWN, evidence, "they may lead anywhere, so nothing is removed here", "remove them: Spark makes none")
    if facts.sink is None and facts.files and not (facts.metadata or facts.offsets.numbers or facts.commits.numbers or facts.operators or facts.sources):
        yield Finding(Health.UNKNOWN, "none of its files is of a checkpoint", "nothing can be said of it", "name the folder that holds metadata and offsets")
    for why in patient.around.unread:
        yield Finding(Health.UNKNOWN, why, "whether it fits its stream and its source cannot be told", "bring that back, then examine it again", told=True)


def _identity(patient: Patient) -> Iterator[Finding]:
    facts, text = patient.facts, patient.texts.metadata
    if text is None:
        if facts.metadata is None and (facts.offsets.numbers or facts.commits.numbers or facts.operators or facts.sources):
            forgets = "the next start mints a new query id without an error; the sink then forgets its batches, and one in flight is written twice"
            yield Finding(Health.DAMAGED, "metadata is missing, and other parts of a checkpoint are there", forgets, RESTORE)
        return
    try:
        contents.identity(text)
    except Malformed as error:
        yield Finding(Health.DAMAGED, str(error), "Spark does not start from it", RESTORE)
        return
    oldest = facts.offsets.first_written
    if not patient.around.known and facts.metadata is not None and oldest is not None and facts.metadata.changed > oldest[1] + 1:
        evidence = f"metadata is younger than offsets/{oldest[0]}"
        if patient.around.alone:
            why = "it was minted anew, or somebody gave it a new identity: which of them only its platform knows"
            yield Finding(Health.UNKNOWN, evidence, why, "examine it as the checkpoint of its stream")
            return
        twice = "the query id was lost and minted anew: a batch in flight at that time is in its tables twice, and nothing else knows of it"
        fix = "compare its tables with their source (./k2 reconcile), and find out what removes files here"
        yield Finding(Health.DAMAGED, evidence, twice, fix)


def _sequence(patient: Patient) -> Iterator[Finding]:
    """The last two plans must follow on each other, and the last commit must be one of them."""
    facts = patient.facts
    offsets, commits = facts.offsets, facts.commits
    last, committed = offsets.last, commits.last
    if last is None:
        if facts.operators and committed is None:
            yield Finding(
                Health.DAMAGED, "there is state, and neither offsets nor commits", "batches begin at 0 again, on state that is of later ones", RESTORE
            )
        if committed is not None:
            lost = "batches begin at 0 again under the old query id, and the sink takes them for those that it has: new data is lost without an error"
            yield Finding(Health.DAMAGED, f"commits up to {committed} without any offsets", lost, RESTORE)
        return
    if last > 0 and not offsets.holds(last - 1):
        yield Finding(
            Health.DAMAGED, f"offsets/{last} is there but offsets/{last - 1} is not", f"Spark does not start: batch {last - 1} doesn't exist", RESTORE
        )
    if committed is None:
        if last > 0:
            again = f"batch {last} is done again, and a sink that does not know its number writes it twice"
            yield Finding(Health.DAMAGED, f"offsets up to {last} without any commit", again, RESTORE)
    elif committed not in (last, last - 1):
        evidence = f"the last commit is {committed}, the last plan {last}: they must be equal or neighbours"
        yield Finding(Health.DAMAGED, evidence, "batches between them are done twice, or never", RESTORE)
    for name, log in (("offsets", offsets), ("commits", commits)):
        if missing := [n for n in log.missing() if n < last - 1]:
            evidence = f"{name}/{missing[0]} is missing between {log.first} and {log.last}"
            why = "a start does not need it, but Spark removes the oldest only: somebody else deletes files here"
            yield Finding(Health.BREAKING, evidence, why, "find out who, before one goes that is needed")


def _contents(patient: Patient) -> Iterator[Finding]:
    texts = patient.texts
    try:
        for batch, text in texts.plans.items():
            contents.check_plan(text, f"offsets/{batch}")
        if texts.commit is not None:
            contents.commit(texts.commit, f"commits/{patient.facts.commits.last}")
        for source, kind in patient.sources.items():
            if kind is not SourceKind.FILES and source in texts.starts:
                contents.start(texts.starts[source], f"the start of source {source}")
        for name, text in texts.file_logs.items():
            contents.file_log(text, name)
    except UnknownFormat as error:
        yield Finding(Health.UNKNOWN, str(error), "it may be right, and nothing can be said of it", "examine it by hand")
    except Malformed as error:
        yield Finding(Health.DAMAGED, str(error), "Spark does not start from it", RESTORE)


def _starts(patient: Patient) -> Iterator[Finding]:
    try:
        kinds = patient.sources
    except Malformed:
        return  # told of its contents
    for number, kind in kinds.items():
        source = patient.facts.sources.get(number, Source())
        if kind in (SourceKind.KAFKA, SourceKind.ICEBERG) and source.start is None:
            evidence = f"where source {number} began is gone (below sources/{number})"
            again = "Spark asks the source anew where it begins; a batch 0 that is done again, or a start with AvailableNow, reads something else"
            yield Finding(Health.BREAKING, evidence, again, "find out what removes files here; put back a backup before a start with AvailableNow")


def _file_logs(patient: Patient) -> Iterator[Finding]:
    facts = patient.facts
    try:
        kinds = patient.sources
    except Malformed:
        kinds = {}
    for name, log in [*((f"sources/{number}", source) for number, source in facts.sources.items()), *([(SINK_LOG, facts.sink)] if facts.sink else [])]:
        if log.largest > LARGE_LOG_BYTES:
            evidence = f"{name}: its compact file has {log.largest / MIB:,.0f} MiB"
            yield Finding(
                Health.GROWING,
                evidence,
                "it names every file that there ever was, and is written anew every few batches",
                "write to another folder from now on"
                if name == SINK_LOG
                else "let the query read fewer and larger files: a new checkpoint would read all again",
            )
    for number, source in facts.sources.items():
        if kinds.get(number) is SourceKind.FILES and (why := _broken_log(source)):
            yield Finding(Health.DAMAGED, f"sources/{number}: {why}", "Spark does not start, or dies at its next compaction", RESTORE)
    if facts.sink is not None and (why := _broken_log(facts.sink)):
        yield Finding(
            Health.DAMAGED, f"{SINK_LOG}: {why}", "the stream goes on, and every reader of its output fails", "put it back from a backup of the output"
        )


def _broken_log(source: Source) -> str | None:
    """What is missing of a file log: everything since its newest compact file, and compact files at even distances."""
    newest = max([*source.log.numbers, *source.compacts], default=None)
    if newest is None:
        return None
    compacts = sorted(source.compacts)
    base = compacts[-1] if compacts else -1
    missing = next((n for n in range(base + 1, newest + 1) if not source.log.holds(n)), None)
    if missing is not None:
        return f"batch {missing} is missing, and {f'{base}.compact is the newest that holds all before it' if compacts else 'no compact file holds it'}"
    distances = {after - before for before, after in pairwise(compacts)}
    if len(distances) > 1 or any((compacts[0] + 1) % distance for distance in distances):
        return f"compact files {', '.join(f'{n}.compact' for n in compacts)} are not at even distances, so one of them is gone"
    return None


def _state(patient: Patient) -> Iterator[Finding]:
    for number, operator in patient.facts.operators.items():
        if (text := patient.texts.operators.get(number)) is not None and patient.facts.commits.numbers:
            try:
                declared = contents.partitions(text, f"state/{number}/_metadata/metadata")
            except Malformed as error:
                yield Finding(Health.UNKNOWN, str(error), "whether all of its state is there cannot be told", "examine it by hand")
            else:
                if len(operator.partitions) < declared:
                    evidence = f"state/{number} has {len(operator.partitions)} of {declared} partitions"
                    yield Finding(Health.DAMAGED, evidence, "the query fails when it loads its state", RESTORE)
        if operator.broken:
            count = f" ({operator.broken_count} stores)" if operator.broken_count > len(operator.broken) else ""
            yield Finding(Health.DAMAGED, f"{'; '.join(operator.broken)}{count}", "the query fails when it loads its state", RESTORE)
        elif operator.never_whole and operator.most_changes >= MANY_CHANGES:
            yield Finding(
                Health.GROWING,
                f"state/{number}: {operator.never_whole} of {operator.stores} stores have up to {operator.most_changes} changes and no snapshot",
                "each start reads all of them again, and it grows with each run",
                "runs end before the maintenance of the state: let them last longer than spark.sql.streaming.stateStore.maintenanceInterval, or shorten that",
            )


def _remains(patient: Patient) -> Iterator[Finding]:
    facts = patient.facts
    if facts.orphans.count and not facts.commits.numbers and facts.offsets.last:
        evidence = f"checksums without their files: {', '.join(facts.orphans.named)}"
        yield Finding(Health.DAMAGED, evidence, "Spark takes what is left of the log for another query that runs, and does not start", RESTORE)
    latest = left_before(facts, patient.now)
    left = [some for some in (facts.temporary, facts.orphans) if some.count and some.oldest <= latest]
    if left:
        oldest = datetime.fromtimestamp(min(some.oldest for some in left), UTC)
        count, size = sum(some.count for some in left), sum(some.bytes for some in left)
        evidence = f"crashed writes have left files here: {count:,} of such names, {size:,} bytes, the oldest of {oldest:%Y-%m-%d}: {', '.join(left[0].named)}"
        yield Finding(Health.GROWING, evidence, "nobody but checkpoints_prune ever removes them", "none: checkpoints_prune takes those that are old enough")
    if facts.strays.count:
        evidence = f"{facts.strays.count:,} files that Spark did not write: {', '.join(facts.strays.named)}"
        if any(name.startswith("sources/") for name in facts.strays.named) and _unknown_source(patient):
            yield Finding(Health.UNKNOWN, evidence, "they may be of a source that is not known here", "examine it by hand, and move nothing")
            return
        upkeep = "one in a folder of state can keep Spark from cleaning it up for good, without an error, or a later start from loading it"
        yield Finding(Health.BREAKING, evidence, upkeep, "move them out of the checkpoint")


def _unknown_source(patient: Patient) -> bool:
    try:
        return not patient.sources
    except Malformed:
        return True


def _place(patient: Patient) -> Iterator[Finding]:
    """Whether it fits its stream, and its source still holds the place where it goes on."""
    around, facts = patient.around, patient.facts
    if around.rewound:
        yield Finding(
            Health.DAMAGED,
            around.rewound,
            "its stream is held as REWIND and not started",
            "put its own checkpoint back, or use streams_control with rebuild or adopt",
            told=True,
        )
    if around.loss is not None:
        held = "its stream is held as REWIND at its next start"
        yield Finding(Health.DAMAGED, around.loss.sentence, held, "see the runbook: a stream is held as REWIND", told=True)
    committed_at = facts.commits.written.get(facts.commits.last) if facts.commits.last is not None else None
    if around.loss is None and around.keeps is not None and around.behind and committed_at is not None:
        silent = timedelta(seconds=patient.now.timestamp() - committed_at)
        if silent > NEAR * around.keeps:
            evidence = f"its last commit is {_days(silent)} old, and its source keeps what it has not read for {_days(around.keeps)}"
            yield Finding(Health.BREAKING, evidence, "what it was to read next is deleted, and lost for it", "start its stream, or retire it")
    if around.stream is None and around.begins_on_main is False:
        evidence = "the snapshot that its reader began with is no longer in the table"
        yield Finding(Health.BREAKING, evidence, "a run with AvailableNow fails; one with a trigger interval goes on", "do not run it with AvailableNow")


def _size(patient: Patient) -> Iterator[Finding]:
    around, size = patient.around, patient.facts.bytes / MIB
    growth = patient.growth_per_day
    if around.limit_mb is not None and size > around.limit_mb:
        rate = "" if growth is None else f", {growth / MIB:+.1f} MiB a day"
        yield Finding(
            Health.GROWING, f"{size:,.0f} MiB{rate}", "starts and backups take longer", "see which folder it is, most of all state/; never delete files by hand"
        )
    if around.stream is None and not around.alone:
        unclaimed = "it stays for ever: that nobody declares its stream is no proof that nobody needs it"
        yield Finding(Health.GROWING, "no declared stream claims it", unclaimed, "find out whose it was, then retire it")


def _days(length: timedelta) -> str:
    return f"{length / timedelta(days=1):.1f} days"


CHECKS = (_readable, _identity, _sequence, _contents, _starts, _file_logs, _state, _remains, _place, _size)
