"""The plan of a pruning: a file that names what crashed writes have left in a checkpoint, and why each of it may go.

Lines of JSON: one for each file, and at last one with the sums, what keeps the plan from being carried out, and the sha256 of
all lines before. It is written while the checkpoint is walked over, so that memory does not grow with what is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from k2.checkpoints.doctor import LEFTOVER_AGE, Health, Surroundings
from k2.checkpoints.examine import Examination, examine
from k2.checkpoints.scan import File

MANY_FILES, MANY_SHARE = 1000, 0.5
"""More than so many leftovers that are also more than this share of all files are not normal: a person is asked."""
TEMPORARY = "written and never renamed into place, and older than any batch (I6)"
CHECKSUM = "the checksum of a file that is not there, or goes too (I6)"


class PlanChanged(ValueError):
    """A plan is not as it was written: the message says how."""


@dataclass(frozen=True)
class Item:
    """One file that may go: its path below the checkpoint, and how it was when the plan was made."""

    path: str
    size: int
    changed: float
    """Seconds since 1970."""
    why: str


@dataclass(frozen=True)
class Plan:
    """`refused` says why nothing of it may be done, `unusual` why only after a person has agreed."""

    file: Path
    checkpoint: str
    at: datetime
    files: int
    bytes: int
    before: float
    """Seconds since 1970. Nothing that was changed later may go."""
    refused: str | None
    unusual: str | None
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"file": str(self.file), "at": self.at.isoformat()}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Plan:
        """From what `as_dict` gave."""
        return cls(**{**found, "file": Path(found["file"]), "at": datetime.fromisoformat(found["at"])})


def plan(path: Path, around: Surroundings, now: datetime, file: Path) -> tuple[Examination, Plan]:
    """Examine a checkpoint and write down what could go. Raises NotACheckpoint, OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part, seen = file.with_name(f".{file.name}.part"), file.with_name(f".{file.name}.seen")
    with seen.open("w") as out:
        # How old the files must be follows from the batches, which are all known at the end only.
        examination = examine(path, around, now, _Writer(out, (now - LEFTOVER_AGE).timestamp()).take)
    with part.open("w") as out, seen.open() as lines:
        found = _Writer(out, examination.left_before)
        for line in lines:
            found.write(Item(**json.loads(line)))
    seen.unlink()
    made = Plan(
        file,
        str(path),
        now,
        found.files,
        found.bytes,
        examination.left_before,
        _refused(examination),
        _unusual(found.files, examination.files),
        found.digest.hexdigest(),
    )
    with part.open("a") as out:
        out.write(json.dumps({"plan": made.as_dict()}) + "\n")
    part.replace(file)
    return examination, made


def _refused(examination: Examination) -> str | None:
    if examination.health in (Health.BREAKING, Health.UNKNOWN, Health.DAMAGED):
        return f"it is {examination.health}: {examination.findings[0].evidence}"
    return None


def _unusual(files: int, of: int) -> str | None:
    if files > MANY_FILES and files > MANY_SHARE * of:
        return f"{files:,} of its {of:,} files are leftovers"
    return None


class _Writer:
    """Writes a line for each file that may go: one that was not changed after a moment."""

    def __init__(self, out: TextIO, latest: float) -> None:
        self._out = out
        self._latest = latest
        self.files = self.bytes = 0
        self.digest = hashlib.sha256()

    def take(self, file: File, of: str | None) -> None:
        self.write(Item(file.path, file.size, file.changed, CHECKSUM if of else TEMPORARY))

    def write(self, item: Item) -> None:
        if item.changed > self._latest:
            return
        line = json.dumps(asdict(item)) + "\n"
        self._out.write(line)
        self.digest.update(line.encode())
        self.files += 1
        self.bytes += item.size


def items(file: Path) -> Iterator[Item]:
    """What a plan names. Raises PlanChanged at its end when it is not as it was written."""
    digest = hashlib.sha256()
    with file.open() as lines:
        for line in lines:
            found = json.loads(line)
            if "plan" in found:
                if found["plan"]["sha256"] != digest.hexdigest():
                    raise PlanChanged(f"{file} is not as it was written: make the plan anew")
                return
            digest.update(line.encode())
            yield Item(**found)
    raise PlanChanged(f"{file} ends before its last line: make the plan anew")
