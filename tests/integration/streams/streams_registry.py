"""The schema registry as a driver sees it, with a switch: it can go away and come back."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


def register_schema(registry: str, subject: str, schema: str) -> int:
    """Register a schema under a subject. Returns its id; raises HTTPError when the registry refuses it."""
    request = urllib.request.Request(
        f"{registry}/subjects/{subject}/versions", data=json.dumps({"schema": schema}).encode(), headers={"Content-Type": CONTENT_TYPE}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(json.load(answer)["id"])


class Switch:
    """Hands requests on to the real registry while `up` is set, and answers 503 while it is not."""

    def __init__(self, registry: str) -> None:
        self.up = True
        self.asked: list[str] = []
        self.also: dict[str, str] = {}
        """Schemas by path that this registry knows and the real one does not."""
        switch = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                switch.asked.append(self.path)
                code, body = switch.answer(registry, self.path)
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, registry: str, path: str) -> tuple[int, bytes]:
        if not self.up:
            return 503, b"{}"
        if path in self.also:
            return 200, json.dumps({"schema": self.also[path]}).encode()
        try:
            with urllib.request.urlopen(registry + path, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
