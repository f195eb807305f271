"""The triggers of the platform. They run in the triggerer's event loop, so every wait is awaited and every read is in a thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 60.0
TELL_AFTER_FAILURES = 3
LOG_EVERY_SECONDS = 30.0


class StreamsPollTrigger(BaseEventTrigger):
    """Polls all streams and fires when something must be done about one.

    One poll serves every stream. It fires on a change only (k2.watchdog.Poll is edge-triggered); after a restart of the
    triggerer it may fire again for what it fired for before, which is harmless, because the run observes again. It
    needs no watermark: what it would remember is derived from the streams themselves.

    The payload: {"at": ISO time, "streams": [names], "because": {stream: sentence}}. `streams` is empty when the poll
    itself keeps failing, so that a run looks in its stead.
    """

    def __init__(self, interval_seconds: float = POLL_SECONDS) -> None:
        super().__init__()
        self.interval_seconds = interval_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "k2.airflow.triggers.StreamsPollTrigger", {"interval_seconds": self.interval_seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        poll: Any = None
        failures = 0
        try:
            while True:
                begun = time.monotonic()
                try:
                    if poll is None:
                        poll = await asyncio.to_thread(_new_poll)
                    due = await asyncio.to_thread(poll.tick, self.interval_seconds)
                except Exception as error:  # a trigger that raises is started again every two seconds, for ever and in silence
                    failures += 1
                    log.exception("The poll of the streams failed, %s in a row", failures)
                    pause = min(BACKOFF_CAP_SECONDS, self.interval_seconds * 2 ** min(failures, 10))
                    why = f"{failures} polls in a row failed, the next one is in {pause:.0f} s: {type(error).__name__}: {error}"
                    if failures >= TELL_AFTER_FAILURES:
                        await asyncio.to_thread(_say_failing, why)
                    if failures == TELL_AFTER_FAILURES:
                        yield _event([], {"poll": why})
                    await asyncio.sleep(pause)
                    continue
                failures = 0
                if due:
                    yield _event([d.stream for d in due], {d.stream: d.because for d in due})
                # A tick waits for a change by itself, but returns at once while the host agent does not answer.
                await asyncio.sleep(max(0.0, begun + self.interval_seconds - time.monotonic()))
        finally:
            if poll is not None:
                await asyncio.to_thread(poll.close)


class WantedReachedTrigger(BaseTrigger):
    """Fires once: when every wish is fulfilled or past fulfilling, or at the deadline.

    `wants` maps each stream to the generation that was recorded for it, at `since`; `since` and `deadline` are ISO times.
    The payload: {"reached": {stream: sentence}, "missing": {stream: sentence}}.
    """

    def __init__(self, desired: str, wants: dict[str, int], deadline: str, interval_seconds: float = 1.0, since: str | None = None) -> None:
        super().__init__()
        self.since = since
        self.desired = desired
        self.wants = wants
        self.deadline = deadline
        self.interval_seconds = interval_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {"desired": self.desired, "wants": self.wants, "deadline": self.deadline, "interval_seconds": self.interval_seconds, "since": self.since}
        return "k2.airflow.triggers.WantedReachedTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        deadline = datetime.fromisoformat(self.deadline)
        since = datetime.fromisoformat(self.since) if self.since else None
        reached: dict[str, str] = {}
        log_again = 0.0
        while True:
            try:
                found = await asyncio.to_thread(_read_progress, self.desired, self.wants, since)
                reached = {stream: p.because for stream, p in found.items() if p.reached}
                missing = {stream: p.because for stream, p in found.items() if not p.reached}
                over = all(p.over for p in found.values())
            except Exception as error:  # the database may be away for a moment; the deadline decides
                log.warning("The streams' state could not be read: %s", error)
                reached = {}
                missing, over = dict.fromkeys(self.wants, f"its state could not be read: {type(error).__name__}: {error}"), False
            if time.monotonic() >= log_again:
                log.info("Waiting for %s", "; ".join(f"{stream}: {because}" for stream, because in missing.items()) or "nothing")
                log_again = time.monotonic() + LOG_EVERY_SECONDS
            if over or datetime.now(UTC) >= deadline:
                break
            await asyncio.sleep(self.interval_seconds)
        yield TriggerEvent({"reached": reached, "missing": missing})


def _event(streams: list[str], because: dict[str, str]) -> TriggerEvent:
    return TriggerEvent({"at": datetime.now(UTC).isoformat(), "streams": streams, "because": because})


def _say_failing(why: str) -> None:
    """Leave a note for whoever looks: that the poll backs off, and why. The runs of streams_watch make an incident of it when it lasts."""
    from k2.registry.runtime import load_runtime
    from k2.state import database, watchers

    try:
        with database.connect(load_runtime(), "control") as connection:
            watchers.failing(connection, "poll", why)
    except Exception as error:
        log.error("That the poll fails could not be written down: %s", error)


def _new_poll() -> Any:
    from k2.registry.runtime import load_runtime
    from k2.watchdog import Poll

    return Poll(load_runtime())


def _read_progress(desired: str, wants: dict[str, int], since: datetime | None) -> dict[str, Any]:
    from k2.airflow.control import read_progress
    from k2.registry.runtime import load_runtime

    return read_progress(load_runtime(), desired, wants, since)
