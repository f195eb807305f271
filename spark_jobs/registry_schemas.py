"""Writer schemas by id, from the schema registry, kept on disk: an id seen once never waits for the registry again."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 5


class RegistryUnreachable(RuntimeError):
    """The registry gave no answer, so nothing is known of the id."""


def fetch_schema(registry: str, schema_id: int) -> str | None:
    """The registry's schema text for an id; None when it says that there is no such id. Raises RegistryUnreachable."""
    url = f"{registry}/schemas/ids/{schema_id}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the address comes from runtime.json
            content = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise RegistryUnreachable(f"{url} answered {error.code}") from error
    except (OSError, ValueError) as error:
        raise RegistryUnreachable(f"{url} did not answer: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("schema"), str):
        raise RegistryUnreachable(f"{url} answered without a schema")
    return content["schema"]


@dataclass(frozen=True)
class Known:
    """The schemas known so far: `writers` decode into the exchange's record, `foreign` ids belong to something else."""

    writers: dict[int, str]
    foreign: frozenset[int]

    def without(self, ids: Set[int]) -> Known:
        return Known({i: text for i, text in self.writers.items() if i not in ids}, self.foreign - ids)


class SchemaBook:
    """The writer schemas of one record type.

    `record_name` gives the full name of the record that a schema text defines, or None when it is no Avro record.
    """

    def __init__(self, folder: Path, expected: str, record_name: Callable[[str], str | None], fetch: Callable[[int], str | None]) -> None:
        self._folder = folder
        self._expected = expected
        self._record_name = record_name
        self._fetch = fetch
        self._writers: dict[int, str] = {}
        self._foreign: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.avsc")):
            if file.stem.isdigit():
                self._add(int(file.stem), file.read_text())

    @property
    def known(self) -> Known:
        return Known(dict(self._writers), frozenset(self._foreign))

    def learn(self, ids: Iterable[int]) -> frozenset[int]:
        """Ask the registry for ids that are not known. Returns those that it does not know either. Raises RegistryUnreachable."""
        missing = set()
        for schema_id in sorted(ids):
            text = self._fetch(schema_id)
            if text is None:
                missing.add(schema_id)
                continue
            # Two drivers may learn the same id at once, and a driver may be killed here: readers see a whole file or none.
            partial = self._folder / f"{schema_id}.{self._expected}.part"
            partial.write_text(text)
            partial.replace(self._folder / f"{schema_id}.avsc")
            self._add(schema_id, text)
        return frozenset(missing)

    def _add(self, schema_id: int, text: str) -> None:
        if self._record_name(text) == self._expected:
            self._writers[schema_id] = text
        else:
            self._foreign.add(schema_id)
