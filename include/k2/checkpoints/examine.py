"""Examines a checkpoint: one walk over it, its few small files, and what the doctor says of them. It only reads."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k2.checkpoints import contents
from k2.checkpoints.doctor import Finding, Health, Patient, Surroundings, Texts, diagnose, health, left_before, missing
from k2.checkpoints.names import METADATA, SINK_LOG, is_being_written, printable
from k2.checkpoints.scan import Facts, Found, scan

LOOK_AGAIN_SECONDS = 0.5
"""A query that runs meanwhile may have moved between two listings: damage counts when it is seen twice."""
MOST_BYTES = 4 * 1024 * 1024
"""No file that is read here is as large in a checkpoint of Spark's, but the compact ones of files' logs: those are left out."""


class NotACheckpoint(ValueError):
    """A path that cannot be examined: the message says why, and what could be."""


@dataclass(frozen=True)
class Examination:
    """What one checkpoint is. All but the first four are of one that exists."""

    folder: str
    stream: str | None
    """The declared stream that claims it."""
    exists: bool
    health: Health
    findings: tuple[Finding, ...] = ()
    query_id: str | None = None
    sources: tuple[str, ...] = ()
    planned: int | None = None
    committed: int | None = None
    committed_at: datetime | None = None
    files: int = 0
    bytes: int = 0
    state_bytes: int = 0
    left_before: float = 0.0
    """What was left by a crash is older than this moment, in seconds since 1970."""
    growth_per_day: float | None = None
    """Bytes."""
    retired: str | None = None
    """Of one that is not there: that it is retired, when and by whom."""

    @property
    def absence(self) -> str:
        """Of one that is not there, why."""
        if self.health is Health.UNKNOWN:
            return "not there"
        return "gone" if self.findings else "retired" if self.retired else "never started"

    def as_dict(self) -> dict[str, Any]:
        plain = asdict(self) | {"health": str(self.health), "committed_at": self.committed_at.isoformat() if self.committed_at else None}
        return plain | {"findings": [asdict(finding) | {"health": str(finding.health)} for finding in self.findings]}


def examine(path: Path, around: Surroundings, now: datetime, found: Found = lambda file, of: None) -> Examination:
    """Examine the checkpoint at `path`, or what it means that there is none. Raises NotACheckpoint."""
    if not path.is_symlink() and not path.exists():
        findings = tuple(missing(around))
        return Examination(printable(path.name), around.stream, exists=False, health=health(findings), findings=findings, retired=around.retired)
    seen = _look(path, around, now, found)
    if seen.health is Health.DAMAGED:
        time.sleep(LOOK_AGAIN_SECONDS)
        seen = _look(path, around, now, lambda file, of: None)
    return seen


def _look(path: Path, around: Surroundings, now: datetime, found: Found) -> Examination:
    facts = walk(path, found)
    patient = Patient(facts, _texts(path, facts), around, now)
    findings = diagnose(patient)
    committed = facts.commits.last
    written = facts.commits.written.get(committed) if committed is not None else None
    return Examination(
        printable(path.name),
        around.stream,
        exists=True,
        health=health(findings),
        findings=tuple(findings),
        query_id=_identity(patient.texts),
        sources=_sources(patient),
        planned=facts.offsets.last,
        committed=committed,
        committed_at=datetime.fromtimestamp(written, UTC) if written is not None else None,
        files=facts.files,
        bytes=facts.bytes,
        state_bytes=sum(operator.bytes for operator in facts.operators.values()),
        left_before=left_before(facts, now),
        growth_per_day=patient.growth_per_day,
    )


def walk(path: Path, found: Found = lambda file, of: None) -> Facts:
    """Walk over a checkpoint. Raises NotACheckpoint for what cannot be one."""
    if path.is_symlink():
        raise NotACheckpoint(f"{path} is a symbolic link to {path.readlink()}: name the folder itself")
    if not path.is_dir():
        raise NotACheckpoint(f"{path} is {'a file' if path.exists() else 'not there'}: name the folder of a checkpoint")
    try:
        return scan(path, found)
    except OSError as error:
        raise NotACheckpoint(f"{path} cannot be listed: {error.strerror}: mend its permissions or its disk") from error


def _identity(texts: Texts) -> str | None:
    with contextlib.suppress(contents.Malformed):
        return contents.identity(texts.metadata) if texts.metadata is not None else None
    return None


def _sources(patient: Patient) -> tuple[str, ...]:
    with contextlib.suppress(contents.Malformed):
        return tuple(str(kind) if kind else "no data yet" for kind in patient.sources.values())
    return ("unknown",)


def _texts(path: Path, facts: Facts) -> Texts:
    unread: dict[str, str] = {}

    def read(name: str) -> str | None:
        try:
            # A pipe of that name would wait for whoever writes into it.
            with open(os.open(path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
                raw = file.read(MOST_BYTES + 1)
            if len(raw) > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
            return raw.decode()
        except FileNotFoundError:
            return None
        except OSError as error:
            unread[name] = error.strerror or type(error).__name__
        except ValueError as error:
            unread[name] = "it is not text" if isinstance(error, UnicodeDecodeError) else str(error)
        return None

    def all_of(names: Mapping[Any, str | None]) -> dict[Any, str]:
        return {key: text for key, name in names.items() if name is not None and (text := read(name)) is not None}

    def logs() -> Iterator[str]:
        for folder, source in [*((f"sources/{number}", source) for number, source in facts.sources.items()), *([(SINK_LOG, facts.sink)] if facts.sink else [])]:
            if source.newest is not None and source.newest != "0" and source.largest < MOST_BYTES:
                yield f"{folder}/{source.newest}"

    last, committed = facts.offsets.last, facts.commits.last
    return Texts(
        metadata=read(METADATA),
        plans=all_of({batch: f"offsets/{batch}" for batch in ([last - 1, last] if last else [last]) if batch is not None and facts.offsets.holds(batch)}),
        commit=read(f"commits/{committed}") if committed is not None else None,
        starts=all_of({number: source.start for number, source in facts.sources.items()}),
        operators=all_of({number: f"state/{number}/_metadata/metadata" for number in facts.operators}),
        file_logs=all_of({name: name for name in logs()}),
        unread=unread,
    )


def folders(root: Path, claims: Mapping[str, str]) -> list[str]:
    """Every claimed folder (`claims`: folder name -> stream), there or not, then every unclaimed one below `root`. Raises OSError.

    One that is being written is none yet.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
        others = (entry.name for entry in entries if entry.name not in claims and (entry.is_dir() or entry.is_symlink()))
        return [*claims, *sorted(name for name in others if not is_being_written(name))]
    return list(claims)  # nothing was ever started here
