"""Many small HTTP questions at once, in one thread, each answered or given up for itself.

A plain GET over a connection of its own: what the drivers' status endpoints speak. A general client takes two to eight
times the processor for it (docs/decisions/0009), and there is nothing here that it would be needed for.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

AT_ONCE = 200
ANSWER_LIMIT = 1 << 20
_UNDER_WAY = (0, errno.EINPROGRESS)


class NoAnswer(RuntimeError):
    """Nobody listens, nothing came in time, or what came is no HTTP answer of status 200."""


def fetch(urls: Mapping[str, str], seconds: float) -> Iterator[tuple[str, bytes | NoAnswer]]:
    """The body that each URL answers with, by name and as they come; NoAnswer with the reason after at most `seconds` each."""
    waiting = list(reversed(urls.items()))
    under_way: dict[str, _Call] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < AT_ONCE:
                    name, url = waiting.pop()
                    try:
                        under_way[name] = _Call(name, url, time.monotonic() + seconds, selector)
                    except (OSError, ValueError) as error:
                        yield name, NoAnswer(f"{url} cannot be asked: {type(error).__name__}: {error}")
                ready = selector.select(_until_first(under_way))
                for key, _ in ready:
                    call: _Call = key.data
                    if (answer := call.go_on(selector)) is not None:
                        del under_way[call.name]
                        yield call.name, answer
                now = time.monotonic()
                for call in [c for c in under_way.values() if c.deadline <= now]:
                    del under_way[call.name]
                    call.end(selector)
                    yield call.name, NoAnswer(f"{call.url} did not answer within {seconds:g} s")
        finally:
            for call in under_way.values():
                call.end(selector)


def _until_first(under_way: Mapping[str, _Call]) -> float:
    # They were begun in this order, so the first one is due first.
    return max(0.0, next(iter(under_way.values())).deadline - time.monotonic()) if under_way else 0.0


class _Call:
    """One question: connect, send, read to the end."""

    def __init__(self, name: str, url: str, deadline: float, selector: selectors.BaseSelector) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError("only http:// with a host is asked")
        self.name, self.url, self.deadline = name, url, deadline
        self._question = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
        self._answer = bytearray()
        self._sent = False
        self._socket = socket.socket(socket.AF_INET)
        try:
            self._socket.setblocking(False)
            code = self._socket.connect_ex((parts.hostname, parts.port or 80))
            if code not in _UNDER_WAY:
                raise OSError(code, errno.errorcode.get(code, str(code)))
            selector.register(self._socket, selectors.EVENT_WRITE, self)
        except BaseException:
            self._socket.close()
            raise

    def go_on(self, selector: selectors.BaseSelector) -> bytes | NoAnswer | None:
        """The next step of what is possible now. None while there is more to come."""
        try:
            if not self._sent:
                if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(code, errno.errorcode.get(code, str(code)))
                self._socket.sendall(self._question)
                self._sent = True
                selector.modify(self._socket, selectors.EVENT_READ, self)
                return None
            part = self._socket.recv(65536)
            self._answer += part
            if part and not _complete(self._answer):
                if len(self._answer) > ANSWER_LIMIT:
                    raise ValueError(f"its answer is longer than {ANSWER_LIMIT} bytes")
                return None
            answer: bytes | NoAnswer = _body(self._answer)
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            answer = NoAnswer(f"{self.url}: {type(error).__name__}: {error}")
        self.end(selector)
        return answer

    def end(self, selector: selectors.BaseSelector) -> None:
        selector.unregister(self._socket)
        self._socket.close()


def _head(answer: bytearray) -> tuple[bytes, int | None, int] | None:
    """Status line, the length that is announced, and where the body begins; None while the head is not whole."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return None
    status, *fields = bytes(answer[:end]).split(b"\r\n")
    length = None
    for field in fields:
        key, _, value = field.partition(b":")
        if key.lower() == b"content-length":
            length = int(value)
        elif key.lower() == b"transfer-encoding":
            raise ValueError(f"its answer comes in an encoding that is not read here: {value.strip().decode(errors='replace')}")
    return status, length, end + 4


def _complete(answer: bytearray) -> bool:
    head = _head(answer)
    return head is not None and head[1] is not None and len(answer) >= head[2] + head[1]


def _body(answer: bytearray) -> bytes:
    """Raises ValueError for anything but a whole answer of status 200."""
    head = _head(answer)
    if head is None or not head[0].startswith(b"HTTP/1."):
        raise ValueError(f"it is no HTTP answer: {bytes(answer[:40])!r}")
    status, length, begin = head
    if status.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError(f"it answers {status.decode(errors='replace')}")
    if length is not None and len(answer) < begin + length:
        raise ValueError(f"its answer broke off after {len(answer) - begin} of {length} bytes")
    return bytes(answer[begin : None if length is None else begin + length])
