from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from registry_schemas import RegistryUnreachable, SchemaBook, fetch_schema

OURS = '{"type": "record", "name": "Trade"}'


def record_name(text: str) -> str | None:
    try:
        return str(json.loads(text)["name"])
    except ValueError:
        return None


def book(folder: Path, registry: dict[int, str | None]) -> SchemaBook:
    """A book over a registry that knows these ids; an id that is not even a key makes it unreachable."""

    def fetch(schema_id: int) -> str | None:
        if schema_id not in registry:
            raise RegistryUnreachable("down")
        return registry[schema_id]

    return SchemaBook(folder, "Trade", record_name, fetch)


def test_ids_are_sorted_into_writers_foreign_and_missing(tmp_path: Path) -> None:
    """The expected record decodes; another record, or no Avro at all, is foreign; what the registry denies is missing."""
    schemas = book(tmp_path, {1: OURS, 2: '{"name": "Quote"}', 3: "protobuf", 4: None})
    assert schemas.learn([1, 2, 3, 4]) == {4}
    assert schemas.known.writers == {1: OURS}
    assert schemas.known.foreign == {2, 3}


def test_a_known_id_outlives_the_process_and_the_registry(tmp_path: Path) -> None:
    """What was learnt is on disk: the next driver knows it without asking."""
    book(tmp_path, {1: OURS, 2: '{"name": "Quote"}'}).learn([1, 2])
    (tmp_path / "7.Trade.part").write_text("half a sche")
    again = book(tmp_path, {})
    assert (again.known.writers, again.known.foreign) == ({1: OURS}, {2})


def test_an_id_that_is_denied_once_is_asked_again(tmp_path: Path) -> None:
    """A 404 is not remembered: the schema may be registered later."""
    registry: dict[int, str | None] = {1: None}
    schemas = book(tmp_path, registry)
    assert schemas.learn([1]) == {1}
    registry[1] = OURS
    assert schemas.learn([1]) == set()
    assert schemas.known.writers == {1: OURS}


def test_no_answer_is_not_a_denial(tmp_path: Path) -> None:
    """An unreachable registry raises, and nothing is concluded of the id."""
    with pytest.raises(RegistryUnreachable):
        book(tmp_path, {}).learn([1])


def test_without_hides_ids(tmp_path: Path) -> None:
    """A batch that was begun with an id unknown goes on with it unknown."""
    schemas = book(tmp_path, {1: OURS, 2: OURS, 3: '{"name": "Quote"}'})
    schemas.learn([1, 2, 3])
    assert schemas.known.without(frozenset({2, 3})).writers == {1: OURS}
    assert schemas.known.without(frozenset({2, 3})).foreign == frozenset()


@pytest.fixture
def registry() -> Iterator[str]:
    answers = {
        "/schemas/ids/1": (200, json.dumps({"schema": OURS})),
        "/schemas/ids/2": (500, "{}"),
        "/schemas/ids/3": (200, "<html>"),
        "/schemas/ids/4": (200, "{}"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = answers.get(self.path, (404, "{}"))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_fetch_tells_a_denial_from_no_answer(registry: str) -> None:
    """404 alone means that there is no such id; errors, other pages and a closed port mean that nobody knows."""
    assert fetch_schema(registry, 1) == OURS
    assert fetch_schema(registry, 9) is None
    for schema_id in (2, 3, 4):
        with pytest.raises(RegistryUnreachable, match=f"ids/{schema_id}"):
            fetch_schema(registry, schema_id)
    with pytest.raises(RegistryUnreachable, match="did not answer"):
        fetch_schema("http://127.0.0.1:1", 1)
