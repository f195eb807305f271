"""What the names in a checkpoint mean: Spark's own files, their checksums, and what a crash left behind. Pure."""

from __future__ import annotations

import re

LOGS = ("offsets", "commits")
METADATA = "metadata"
SINK_LOG = "_spark_metadata"
"""The folder below a file sink's output in which Spark lists the files that count."""

LEFTOVER = re.compile(r"\.[^/]+\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(\.TID\d+)?\.tmp")
"""A file that was written and never renamed into place. Nobody but a pruner ever removes it."""
_COMPACTED = re.compile(r"([0-9]+)\.compact")
_UNIQUE = re.compile(r"[0-9a-f-]{36}")
_KINDS = frozenset({"delta", "snapshot", "changelog", "zip"})

MOST_DIGITS = 18
"""Spark's numbers are Java's long ones."""
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127)}

WHOLE = frozenset({"snapshot", "zip"})
"""State files from which a version can be loaded without an earlier one."""


REBUILT = ".rebuilt"


def being_written(name: str) -> str:
    """The folder, beside a checkpoint, in which that is written before it is renamed into its place."""
    return f".{name}{REBUILT}"


def is_being_written(name: str) -> bool:
    return name.startswith(".") and name.endswith(REBUILT)


def number(text: str) -> int | None:
    """The number of a batch or version as Spark writes it; None for any other text."""
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= MOST_DIGITS and (text[0] != "0" or text == "0") else None


def printable(name: str) -> str:
    """A name as it can be printed, sent and stored, whatever its bytes are."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace").translate(_CONTROL)


def compacted(name: str) -> int | None:
    """The batch up to which a file log's `N.compact` holds everything; None for any other name."""
    found = _COMPACTED.fullmatch(name)
    return number(found[1]) if found else None


def version(name: str) -> tuple[int, str] | None:
    """Version and kind (delta, snapshot, changelog or zip) of a state store's file; None for any other name."""
    numbered, _, kind = name.partition(".")
    numbered, _, unique = numbered.partition("_")
    found = number(numbered) if kind in _KINDS else None
    return (found, kind) if found is not None and (not unique or _UNIQUE.fullmatch(unique)) else None


def is_leftover(name: str) -> bool:
    return LEFTOVER.fullmatch(name) is not None


def summed_by(name: str) -> str:
    """The name of the file whose checksum this `.crc` file is.

    Hadoop writes `.X.crc` for each X, Spark itself `X.crc` for a state file, whose own checksum is then `.X.crc.crc`.
    """
    return name[1:-4] if name.startswith(".") else name[:-4]
