"""One walk over a checkpoint: what it holds, counted and summed. Memory does not grow with the number of files.

It may be written to meanwhile: a file that vanishes was purged by Spark or renamed, and is left out.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from k2.checkpoints.names import LOGS, METADATA, SINK_LOG, WHOLE, compacted, is_leftover, number, printable, summed_by, version

TIMED = 200
"""Of so many of the newest batches it is kept when they were planned and committed: Spark retains half as many."""
_INSIDE_STORE = frozenset({"SSTs", "logs", "_metadata", "archive"})
NAMED = 5
"""So many of a kind of file are named, the others are counted."""


Taker = Callable[[str, int, float], bool]
"""Takes a file's name, size and time of change, and says whether it belongs there."""


@dataclass(frozen=True)
class File:
    """One file: its path below the checkpoint, bytes, and when it was last changed, in seconds since 1970."""

    path: str
    size: int
    changed: float


@dataclass
class Some:
    """Files of one kind: all are counted, a few are named."""

    count: int = 0
    bytes: int = 0
    oldest: float = float("inf")
    named: list[str] = field(default_factory=list)

    def add(self, file: File) -> None:
        self.count += 1
        self.bytes += file.size
        self.oldest = min(self.oldest, file.changed)
        if len(self.named) < NAMED:
            self.named.append(printable(file.path))


@dataclass
class Numbered:
    """The numbers that a log folder holds."""

    numbers: array[int] = field(default_factory=lambda: array("q"))
    """Rising, once the walk is over."""
    written: dict[int, float] = field(default_factory=dict)
    """When the newest were written."""
    first_written: tuple[int, float] | None = None
    """The lowest number, and when that was written."""

    def take(self, name: str, size: int, changed: float) -> bool:
        """Take in a file of the log. False when it is none."""
        batch = number(name)
        if batch is None:
            return False
        self.numbers.append(batch)
        self.written[batch] = changed
        if self.first_written is None or batch < self.first_written[0]:
            self.first_written = batch, changed
        if len(self.written) > 4 * TIMED:
            self._forget()
        return True

    def settle(self) -> None:
        """Put what was taken in into order."""
        self.numbers = array("q", sorted(self.numbers))
        self._forget()

    def _forget(self) -> None:
        self.written = {n: self.written[n] for n in sorted(self.written)[-TIMED:]}

    @property
    def last(self) -> int | None:
        return self.numbers[-1] if self.numbers else None

    @property
    def first(self) -> int | None:
        return self.numbers[0] if self.numbers else None

    def holds(self, batch: int) -> bool:
        place = bisect_left(self.numbers, batch)
        return place < len(self.numbers) and self.numbers[place] == batch

    def missing(self) -> list[int]:
        """The first few numbers between first and last that are not there."""
        found: list[int] = []
        for before, after in zip(self.numbers, self.numbers[1:], strict=False):
            found.extend(range(before + 1, min(after, before + 1 + NAMED - len(found))))
            if len(found) >= NAMED:
                break
        return found


@dataclass
class Source:
    """What lies below `sources/N`. A file source keeps a log there, the others where they started."""

    start: str | None = None
    """The file with the place where the query began; None when there is none."""
    log: Numbered = field(default_factory=Numbered)
    compacts: list[int] = field(default_factory=list)
    largest: int = 0
    """Bytes of the largest compact file: it holds all that ever was, and grows for ever."""

    @property
    def newest(self) -> str | None:
        """The name of the log's newest file."""
        last = max([*self.log.numbers, *self.compacts], default=None)
        return None if last is None else f"{last}.compact" if last in self.compacts else str(last)

    def taker(self, path: str) -> Taker:
        def take(name: str, size: int, changed: float) -> bool:
            if name == "0" and self.start is None:
                self.start = f"{path}/{name}"
            if (batch := compacted(name)) is not None:
                self.compacts.append(batch)
                self.largest = max(self.largest, size)
                return True
            return self.log.take(name, size, changed)

        return take

    def start_taker(self, path: str) -> Taker:
        def take(name: str, size: int, changed: float) -> bool:
            if name != "0":
                return False
            self.start = f"{path}/{name}"
            return True

        return take


@dataclass
class Operator:
    """The stores of one stateful operator, `state/N`, taken together."""

    stores: int = 0
    partitions: set[str] = field(default_factory=set)
    bytes: int = 0
    never_whole: int = 0
    """Stores with a change and no snapshot: each start reads all of the changes again."""
    most_changes: int = 0
    """The most changes that have to be read on top of a store's snapshot."""
    broken: list[str] = field(default_factory=list)
    """Of a few stores: which version cannot be loaded, and what is missing for that."""
    broken_count: int = 0

    def take(self, name: str, size: int, changed: float) -> bool:
        """Take in whatever lies beside the stores' versions: table files, logs, schemas."""
        self.bytes += size
        return True


@dataclass
class Facts:
    """What one walk found."""

    files: int = 0
    bytes: int = 0
    changed: float = 0.0
    """When the newest file was changed."""
    metadata: File | None = None
    offsets: Numbered = field(default_factory=Numbered)
    commits: Numbered = field(default_factory=Numbered)
    sources: dict[str, Source] = field(default_factory=dict)
    operators: dict[str, Operator] = field(default_factory=dict)
    sink: Source | None = None
    """Of the output of a file sink: its own log."""
    temporary: Some = field(default_factory=Some)
    """Files that were written and not renamed into place yet, or never will be."""
    orphans: Some = field(default_factory=Some)
    """Checksums of files that are not there."""
    strays: Some = field(default_factory=Some)
    """What Spark did not write."""
    irregular: Some = field(default_factory=Some)
    """Links, pipes and the like."""
    unread: list[str] = field(default_factory=list)
    """Folders that could not be listed, and why."""

    def batch_seconds(self, last: int) -> list[float]:
        """How long the last batches took, oldest first: from the plan's file to the commit's. Batches in flight are left out."""
        planned, committed = self.offsets.written, self.commits.written
        return [committed[n] - planned[n] for n in sorted(committed)[-last:] if n in planned]


Found = Callable[[File, str | None], None]
"""Called for each file that a crash may have left: a temporary file, or a checksum with the name of what it is of."""


def scan(root: Path, found: Found = lambda file, of: None) -> Facts:
    """Walk over everything below `root`. Raises OSError when it is no folder or cannot be listed at all."""
    return _Walk(os.fspath(root), found).walk()


class _Walk:
    def __init__(self, root: str, found: Found) -> None:
        self.root, self.found = root, found
        self.facts = Facts()

    def walk(self) -> Facts:
        facts, left = self.facts, [""]
        while left:
            # Commits, then offsets: a batch is planned before it is committed. Then the state: which version is needed follows from them.
            left.extend(sorted(self._folder(left.pop()), key=lambda path: LOGS.index(path) if path in LOGS else -1))
        logs = [facts.offsets, facts.commits, *(s.log for s in facts.sources.values()), *([facts.sink.log] if facts.sink else [])]
        for log in logs:
            log.settle()
        return facts

    def _folder(self, path: str) -> list[str]:
        """Take in the files of one folder. Returns the folders below it."""
        facts, below = self.facts, []
        store = self._store(path)
        take = store.take if store else self._taker(path)
        prefix = f"{path}/" if path else ""
        files, size, changed = 0, 0, 0.0
        try:
            with os.scandir(f"{self.root}/{path}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(prefix + entry.name)
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    files += 1
                    size += status.st_size
                    changed = max(changed, status.st_mtime)
                    name = entry.name
                    if not stat.S_ISREG(status.st_mode):
                        facts.irregular.add(File(prefix + name, status.st_size, status.st_mtime))
                    elif name.endswith(".crc"):
                        self._checksum(prefix, name, status)
                    elif name.endswith(".tmp") and is_leftover(name):
                        file = File(prefix + name, status.st_size, status.st_mtime)
                        facts.temporary.add(file)
                        self.found(file, None)
                    elif not take(name, status.st_size, status.st_mtime):
                        facts.strays.add(File(prefix + name, status.st_size, status.st_mtime))
        except OSError as error:
            if not path:
                raise
            if not isinstance(error, FileNotFoundError):
                facts.unread.append(f"{printable(path)}: {error.strerror}")
        if store:
            store.conclude()
        facts.files += files
        facts.bytes += size
        facts.changed = max(facts.changed, changed)
        return below

    def _checksum(self, prefix: str, name: str, status: os.stat_result) -> None:
        of = summed_by(name)
        gone = not os.access(f"{self.root}/{prefix}{of}", os.F_OK)
        if gone or is_leftover(of):
            file = File(prefix + name, status.st_size, status.st_mtime)
            if gone:
                self.facts.orphans.add(file)
            self.found(file, prefix + of)

    def _store(self, path: str) -> _Store | None:
        match path.split("/"):
            case ["state", operator, partition, *store] if partition.isdigit() and len(store) <= 1 and not _INSIDE_STORE.intersection(store):
                committed = max(self.facts.commits.numbers, default=None)
                self._operator(operator).partitions.add(partition)
                return _Store(self._operator(operator), self.root, path, None if committed is None else committed + 1)
        return None

    def _operator(self, name: str) -> Operator:
        return self.facts.operators.setdefault(name, Operator())

    def _taker(self, path: str) -> Taker:
        """What takes the files of a folder. It returns False for a file that does not belong there."""
        facts = self.facts
        match path.split("/"):
            case [""]:
                return self._of_root
            case ["offsets"]:
                return facts.offsets.take
            case ["commits"]:
                return facts.commits.take
            case ["sources", source]:
                return facts.sources.setdefault(source, Source()).taker(path)
            case ["sources", source, "offsets"]:
                return facts.sources.setdefault(source, Source()).start_taker(path)
            case [name] if name == SINK_LOG:
                facts.sink = Source()
                return facts.sink.taker(path)
            case ["state", operator, *_]:
                return self._operator(operator).take
        return lambda name, size, changed: False

    def _of_root(self, name: str, size: int, changed: float) -> bool:
        if name != METADATA:
            return False
        self.facts.metadata = File(name, size, changed)
        return True


class _Store:
    """One state store: whether the version that a start needs can be loaded from what is there.

    Batch N leaves version N + 1. A later one is of a batch in flight, which is done again.
    """

    def __init__(self, operator: Operator, root: str, path: str, needed: int | None) -> None:
        self.operator, self.root, self.path, self.needed = operator, root, path, needed
        self.changes, self.whole = array("q"), array("q")
        self.zips: dict[int, str] = {}
        """Of RocksDB's snapshots the newest few up to the needed one."""

    def take(self, name: str, size: int, changed: float) -> bool:
        self.operator.bytes += size
        if (found := version(name)) is None:
            return False
        if not size:
            return True  # cut off by a power failure, it holds no version
        (self.whole if found[1] in WHOLE else self.changes).append(found[0])
        if found[1] == "zip" and (self.needed is None or found[0] <= self.needed):
            self.zips = {found[0]: name} if found[0] > max(self.zips, default=-1) else self.zips
        return True

    def conclude(self) -> None:
        if not self.changes and not self.whole:
            return
        operator = self.operator
        operator.stores += 1
        operator.never_whole += not self.whole
        if self.needed is None:
            return
        base = max((v for v in self.whole if v <= self.needed), default=0)
        above = {v for v in self.changes if base < v <= self.needed}
        operator.most_changes = max(operator.most_changes, len(above))
        missing = next((v for v in range(base + 1, self.needed + 1) if v not in above), None)
        wanted = f"version {missing}" if missing is not None else self._missing_table(base)
        if wanted is not None:
            operator.broken_count += 1
            if len(operator.broken) < NAMED:
                operator.broken.append(f"{self.path}: version {self.needed} needs {wanted}, which is not there")

    def _missing_table(self, base: int) -> str | None:
        """A table file that a snapshot of RocksDB's names and that is not there; None when all are."""
        if base not in self.zips:
            return None
        folder = f"{self.root}/{self.path}"
        try:
            with zipfile.ZipFile(f"{folder}/{self.zips[base]}") as archive:
                named = json.loads(archive.read("metadata").decode().partition("\n")[2]).get("sstFiles", [])
            return next((f"SSTs/{one['dfsSstFileName']}" for one in named if not os.access(f"{folder}/SSTs/{one['dfsSstFileName']}", os.F_OK)), None)
        except FileNotFoundError:
            return None  # purged meanwhile: a newer one is there
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
            return f"{self.zips[base]} as Spark writes it"
