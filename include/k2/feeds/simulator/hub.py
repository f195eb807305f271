"""One exchange's connections: who hears which book, and what is done to them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from k2.feeds.simulator import faults
from k2.feeds.simulator.dialect import Change, Dialect, Subscriptions
from k2.feeds.simulator.message import Message
from k2.feeds.simulator.truth import Truth

SLOW_BYTES = 16 * 1024 * 1024
"""A client with this much unread is cut off, as exchanges do."""
RECENT_MESSAGES = 1000
BEAT_SECONDS = 1.0


@dataclass(eq=False)
class Session:
    number: int
    dialect: Dialect
    websocket: ServerConnection
    subscriptions: Subscriptions
    closed: bool = False


class Hub:
    """Sends one exchange's messages to those who asked for them. Lives in one event loop."""

    def __init__(self, exchange: str, truth: Truth, offered: Collection[str]) -> None:
        self.exchange, self._truth, self._offered = exchange, truth, offered
        self._sessions: dict[int, Session] = {}
        self._recent: deque[Message] = deque(maxlen=RECENT_MESSAGES)
        self._until: dict[str, float] = {}
        self._change: Change | None = None
        self.heard = asyncio.Event()
        """Set once somebody has subscribed."""

    def event(self, name: str, **details: Any) -> None:
        """Put an event into the truth, between the messages before and after it."""
        self._truth.append([{"event": name, "at_us": time.time_ns() // 1000, "message": self._truth.ledger.next_message, **details}])

    @property
    def sessions(self) -> list[Session]:
        return list(self._sessions.values())

    def active(self, kind: str) -> bool:
        """Whether a fault that lasts is on."""
        return time.monotonic() < self._until.get(kind, 0.0)

    async def serve(self, websocket: ServerConnection, dialect: Dialect) -> None:
        """One connection, from its opening to its end."""
        session = Session(self._truth.ledger.next_session, dialect, websocket, Subscriptions(self._offered))
        self._truth.ledger.next_session += 1
        self._sessions[session.number] = session
        self.event("opened", session=session.number, protocol=dialect.name)
        try:
            self._answer(session, dialect.welcome(websocket.request.path, session.subscriptions), set())
            async for text in websocket:
                before = set(session.subscriptions.symbols)
                frame = text if isinstance(text, str) else text.decode(errors="replace")
                self._answer(session, dialect.answer(frame, session.subscriptions), before)
        except ConnectionClosed:
            pass
        finally:
            self._closed(session)

    def _answer(self, session: Session, texts: Iterable[str], before: set[str]) -> None:
        if not self.active("silent"):
            for text in texts:
                broadcast([session.websocket], text)
        if new := session.subscriptions.symbols - before:
            self.event("subscribed", session=session.number, protocol=session.dialect.name, symbols=sorted(new))
            self.heard.set()
        if gone := before - session.subscriptions.symbols:
            self.event("unsubscribed", session=session.number, symbols=sorted(gone))
        for symbol in session.subscriptions.snapshot_of:
            if text := session.dialect.snapshot([m for m in self._recent if m.symbol == symbol]):
                broadcast([session.websocket], text)
        session.subscriptions.snapshot_of.clear()

    def _closed(self, session: Session, why: str | None = None) -> None:
        if session.closed:
            return
        session.closed = True
        del self._sessions[session.number]
        protocol = session.websocket.protocol
        by_client = bool(protocol.close_rcvd and protocol.close_rcvd_then_sent is not False)
        code = protocol.close_rcvd.code if by_client and protocol.close_rcvd else None
        self.event("closed", session=session.number, by="client" if by_client else "exchange", code=code, why=why)

    def note_closed(self) -> None:
        """Record the ends of connections before the next message, so that the truth has them in their order."""
        for session in self.sessions:
            if session.websocket.protocol.state is not State.OPEN:
                self._closed(session)
            elif session.websocket.transport.get_write_buffer_size() > SLOW_BYTES:
                self._cut(session, "too slow")

    def _cut(self, session: Session, why: str) -> None:
        self._closed(session, why)
        session.websocket.transport.abort()

    def publish(self, messages: Sequence[Message], *, to_all: bool = False, keep: bool = True) -> None:
        """Send messages whose truth is written already."""
        if keep:
            self._recent.extend(messages)
        if self.active("silent"):
            return
        change = self._change if self.active("schema_change") else None
        by_dialect = [(d, list(group)) for d, group in itertools.groupby(sorted(self.sessions, key=lambda s: s.dialect.name), key=lambda s: s.dialect)]
        for message in messages:
            for dialect, sessions in by_dialect:
                hearers = [s.websocket for s in sessions if to_all or message.symbol in s.subscriptions.symbols]
                if hearers:
                    broadcast(hearers, dialect.trades(message, change if change in dialect.changes else None))

    async def beat(self) -> None:
        """Heartbeats, for ever."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self.active("silent") or self.active("stop_heartbeats"):
                continue
            for session in self.sessions:
                if session.subscriptions.symbols and (text := session.dialect.heartbeat()):
                    broadcast([session.websocket], text)

    def hurt(self, fault: faults.Fault, invent: Callable[[int], list[Message]]) -> None:
        """Do a fault now. `invent(n)` makes n messages of a pair that nobody asked for, and puts them into the truth."""
        self.note_closed()
        details = fault.model_dump(mode="json", exclude={"exchange"})
        match fault:
            case faults.Repeat():
                again = list(self._recent)[-fault.n :]
                self.event("fault", **details, messages=[m.number for m in again])
                self.publish(again, keep=False)
                return
            case faults.SchemaChange():
                self._change = fault.change
        self.event("fault", **details)
        match fault:
            case faults.Drop():
                for session in self.sessions:
                    self._cut(session, "fault")
            case faults.Silent() | faults.StopHeartbeats() | faults.Refuse() | faults.SchemaChange():
                self._until[fault.kind] = time.monotonic() + fault.seconds
            case faults.Malformed():
                for session in self.sessions:
                    good = session.dialect.trades(self._recent[-1], None) if self._recent else '{"channel":"trade","data":[{}]}'
                    for data, as_text in faults.malformed_frames(good, fault.n):
                        broadcast([session.websocket], data, text=as_text)
            case faults.UnknownPair():
                self.publish(invent(fault.n), to_all=True, keep=False)
