"""How the queries fare, read over and over: each source in threads of its own, so that none waits for another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from k2.probes.observer import Observer, Progress
from k2.probes.reading import failed
from k2.probes.status import as_they_come
from k2.registry.observed import Checkpoint, Driver, QueryStatus, Reading

log = logging.getLogger(__name__)

WORDS_AT_ONCE = 8
"""Batches of questions to drivers; one that waits for a frozen driver keeps no other waiting."""


class Following:
    """Asked about some streams, it brings what it found of them later, each when its last source has answered.

    Statuses are asked in batches side by side, each driver for at most two seconds. Checkpoints and tables are read in
    one thread, topics in another: a broker that is silent delays only the streams that read from it.
    """

    def __init__(self, observer: Observer, threads: Callable[[int, str], Executor] = ThreadPoolExecutor) -> None:
        self._observer = observer
        self._words = threads(WORDS_AT_ONCE, "k2-words")
        self._files = _Queue(threads(1, "k2-files"), self._read_files)
        self._topics = _Queue(threads(1, "k2-topics"), self._read_topics)
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        self._owed: dict[str, set[str]] = {}
        """Per stream that was asked about, the sources that have not answered yet."""
        self._whole: set[str] = set()

    def ask(self, newest: Mapping[str, Reading[Driver]]) -> None:
        """Have these streams read, given their drivers. A source that still owes an answer about one is not asked again."""
        words: dict[str, Reading[Driver]] = {}
        files: dict[str, None] = {}
        with self._lock:
            for name, driver in newest.items():
                owed = self._owed.setdefault(name, set())
                if "status" not in owed:
                    words[name] = driver
                if "checkpoint" not in owed:
                    files[name] = None
                owed |= {"status", "checkpoint", "head"}
        if words:
            self._words.submit(self._safely, self._read_words, words, ("status",))
        self._files.put(files)

    def take(self) -> dict[str, Progress]:
        """What was brought since the last time: streams of which every source has answered."""
        with self._lock:
            whole, self._whole = self._whole, set()
            return {name: Progress(**self._known[name]) for name in whole}

    def close(self) -> None:
        self._words.shutdown(wait=True, cancel_futures=True)
        self._files.close()
        self._topics.close()
        self._observer.close()

    def _read_words(self, newest: Mapping[str, Reading[Driver]]) -> None:
        waiting: dict[str, Reading[QueryStatus]] = {}
        for name, said in as_they_come(newest):
            if said.value is not None and said.value.waits_for is not None:
                waiting[name] = said
            else:
                self._bring(name, status=said, registry=None)
        registry = self._observer.registry(waiting.values())
        for name, said in waiting.items():
            self._bring(name, status=said, registry=registry)

    def _read_files(self, names: Mapping[str, None]) -> None:
        self._safely(self._read_checkpoints, names, ("checkpoint", "head"))

    def _read_checkpoints(self, names: Mapping[str, None]) -> None:
        found = self._observer.checkpoints(names)
        for name, reading in found.items():
            self._bring(name, checkpoint=reading)
        streams = self._observer.runtime.platform.streams
        self._topics.put({name: reading for name, reading in found.items() if streams[name].reads is None})
        for name, head in self._observer.table_heads({name: reading for name, reading in found.items() if streams[name].reads is not None}).items():
            self._bring(name, head=head)

    def _read_topics(self, checkpoints: Mapping[str, Reading[Checkpoint]]) -> None:
        self._safely(self._read_heads, checkpoints, ("head",))

    def _read_heads(self, checkpoints: Mapping[str, Reading[Checkpoint]]) -> None:
        for name, head in self._observer.kafka_heads(checkpoints).items():
            self._bring(name, head=head)

    def _safely(self, work: Callable[[Mapping[str, Any]], None], about: Mapping[str, Any], parts: tuple[str, ...]) -> None:
        """Whatever goes wrong in a way that nobody thought of is an answer too: these streams' parts could not be read."""
        try:
            work(about)
        except Exception as error:
            log.exception("%s of %s streams could not be read", " and ".join(parts), len(about))
            for name in about:
                with self._lock:
                    missing = self._owed[name].intersection(parts)
                self._bring(name, **{part: failed(datetime.now(UTC), error) for part in missing})

    def _bring(self, name: str, **parts: object) -> None:
        with self._lock:
            self._known.setdefault(name, {}).update(parts)
            owed = self._owed[name]
            owed.difference_update(parts)
            if not owed:
                self._whole.add(name)


class _Queue:
    """Work of one thread: what is put in while it is busy is done together afterwards, each name once. The work raises nothing."""

    def __init__(self, thread: Executor, work: Callable[[Mapping[str, Any]], None]) -> None:
        self._thread, self._work = thread, work
        self._lock = threading.Lock()
        self._waiting: dict[str, Any] = {}
        self._busy = False

    def put(self, items: Mapping[str, Any]) -> None:
        with self._lock:
            self._waiting |= items
            begin = not self._busy and bool(self._waiting)
            self._busy |= begin
        if begin:
            self._thread.submit(self._drain)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _drain(self) -> None:
        while True:
            with self._lock:
                items, self._waiting = self._waiting, {}
                self._busy = bool(items)
            if not items:
                return
            self._work(items)
