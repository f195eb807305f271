"""What a run has done so far, in its home, so that it can be resumed: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from k2.stack.errors import K2Error

FILE = "chaos.jsonl"


@dataclass(frozen=True)
class Header:
    """What the plan is made of."""

    seed: int
    faults: int
    without: tuple[str, ...]
    """Kinds that this machine cannot do."""


@dataclass(frozen=True)
class Result:
    """One round. Seconds are from the moment of the first fault; None for what did not happen."""

    number: int
    kinds: tuple[str, ...]
    targets: tuple[str, ...]
    did: str
    detected: float | None
    detected_as: str
    recovered: float | None
    """Until every stream committed again."""
    how: str
    hangs: tuple[tuple[str, str, float], ...] = ()
    """Of each stream that was found hanging: its name, the first verdict that says so, and the seconds from its own fault to that."""
    trouble: str = ""
    """Why the round failed; empty when it did not."""
    skipped: bool = False
    """There was nothing to hurt."""


class Journal:
    def __init__(self, home: Path) -> None:
        self.path = home / FILE

    def begin(self, header: Header) -> None:
        self.path.write_text(json.dumps({"header": asdict(header)}) + "\n")

    def add(self, result: Result) -> None:
        self._append({"round": asdict(result)})

    def finish(self, ok: bool) -> None:
        self._append({"finished": ok})

    def _append(self, line: dict[str, object]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> tuple[Header, list[Result], bool]:
        """The run's header, its rounds, and whether it came to its end. Raises K2Error when there is no run."""
        try:
            lines = [json.loads(line) for line in self.path.read_text().splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise K2Error(f"{self.path} holds no run that could be resumed ({error}): start one with ./k2 chaos") from None
        header = Header(**{**lines[0]["header"], "without": tuple(lines[0]["header"]["without"])})
        rounds = [_result(line["round"]) for line in lines if "round" in line]
        return header, rounds, any("finished" in line for line in lines)


def _result(facts: dict[str, Any]) -> Result:
    tuples = {"kinds": tuple(facts["kinds"]), "targets": tuple(facts["targets"]), "hangs": tuple((s, v, t) for s, v, t in facts["hangs"])}
    return Result(**{**facts, **tuples})
